//! What `confman dev` prints when the cluster is ready: where it is, its key, and what to try next.

use super::layout::Layout;
use super::plan::{NodePlan, StorePlan};

/// The text for a cluster that is ready.
pub(super) fn ready(
    layout: &Layout,
    nodes: &[NodePlan],
    store: &StorePlan,
    api_key: &str,
    seconds: f64,
) -> String {
    let mut text = format!("{} nodes are ready after {seconds:.1} s\n\n", nodes.len());
    for node in nodes {
        text.push_str(&format!(
            "  {}   {}   peers {}\n",
            node.name,
            node.api_url(),
            node.peer
        ));
    }
    let endpoint = store
        .env
        .get("AWS_ENDPOINT_URL")
        .map(|url| format!(" at {url}"))
        .unwrap_or_default();
    let endpoints: Vec<String> = nodes.iter().map(NodePlan::api_url).collect();
    let last = nodes.last().map_or("node1", |node| node.name.as_str());
    let dir = layout.root().display();
    let dir_flag = if std::path::absolute("confman-dev").is_ok_and(|usual| usual == layout.root()) {
        String::new()
    } else {
        format!(" --dir {dir}")
    };
    let trust = if nodes.iter().any(|node| node.tls) {
        format!(
            "  export CONFMAN_TLS_CLIENT_CA_FILE={}\n",
            layout.ca().display()
        )
    } else {
        String::new()
    };
    let alias = match std::env::current_exe() {
        Ok(program) if !is_on_path() => format!("  alias confman={}\n", program.display()),
        _ => String::new(),
    };
    text.push_str(&format!(
        "
  object store   {}{endpoint}
  data, logs     {dir}
  API key        {api_key}   (admin; kept in {})

Try next, in another terminal:

{alias}  export CONFMAN_ENDPOINTS={}
  export CONFMAN_API_KEY={api_key}
{trust}  confman put web/frontend/greeting hello
  confman get web/frontend/greeting
  confman import DIR                 # a directory tree, for example a git checkout
  confman status
  confman snapshot                   # to the object store, now
  confman dev{dir_flag} wipe {last}       # lose a disk
  confman dev{dir_flag} start {last}      # it comes back from the store

Ctrl-C stops it; a second run finds its data; --fresh starts over.
",
        store.url,
        layout.api_key().display(),
        endpoints.join(","),
    ));
    text
}

/// Whether typing `confman` finds one.
fn is_on_path() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join("confman").is_file())
}
