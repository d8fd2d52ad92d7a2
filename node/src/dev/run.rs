//! One run of `confman dev`, from the directory to the last child's end.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context as _;
use confman_client::ClientTls;
use confman_dev_s3::{ConditionalWrites, RunningS3, S3Config};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::control::Control;
use super::document::Document;
use super::fleet::Fleet;
use super::layout::{Birth, Found, Layout, read_secret, write_private};
use super::plan::{self, NodePlan};
use super::{StartArgs, announce, certs, ready};

/// Name of the key that `confman dev` makes for its user.
const KEY_NAME: &str = "dev";

/// Starts the cluster and stays until it is told to stop.
pub(super) async fn start(dir: &Path, args: &StartArgs) -> anyhow::Result<ExitCode> {
    let layout = Layout::new(dir)?;
    // Before the lock makes the directory: what is not ours is left exactly as it is.
    layout.inspect()?;
    let _lock = layout.lock()?;
    if args.fresh
        && let Found::Cluster(_) = layout.inspect()?
    {
        layout.clear()?;
    }
    let found = layout.inspect()?;
    let birth = plan::birth(&found, args, new_secret, plan::free_port)?;
    let user_env = plan::text_env(std::env::vars_os());

    // Listening for the end from here on: an impatient Ctrl-C must not leave children behind.
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let (stop, mut stopped) = mpsc::channel(1);

    // Ports first, then the mark: a cluster that could not have its ports was never born.
    plan::check_ports(&birth)?;
    layout.write_mark(&birth)?;
    let s3 = own_store(&layout, &birth).await?;
    let store = match (&s3, &birth.object_store) {
        (Some(s3), _) => plan::own_store(s3.addr(), &birth.s3_secret_key),
        (None, url) => plan::user_store(url.as_deref().unwrap_or_default(), &user_env),
    };
    let nodes = plan::nodes(&layout, &birth, &store, &user_env);
    layout.make_dirs(nodes.iter().map(|node| node.name.as_str()))?;
    let api_key = secrets(&layout)?;
    let mut client_tls = ClientTls::default();
    if birth.tls {
        certs::make(&layout, &nodes)?;
        client_tls = certs::client(&layout)?;
    }
    for node in &nodes {
        check_settings(node)?;
    }

    let control = Control::bind(&layout)?;
    let document = Document {
        path: layout.document(),
        api_key: api_key.clone(),
        store: store.clone(),
        ca: birth.tls.then(|| layout.ca()),
        nodes: nodes.clone(),
        control_socket: control.path().to_owned(),
    };
    let program = std::env::current_exe().context("find this program")?;
    let fleet = Fleet::new(program, layout.clone(), document, nodes.clone());
    say(format_args!(
        "starting {} nodes in {}",
        nodes.len(),
        layout.root().display()
    ));

    let begin = Instant::now();
    let life = async {
        fleet.start_all().await?;
        ready::wait(&fleet, nodes.len(), &client_tls).await?;
        let text = announce::ready(
            &layout,
            &nodes,
            &store,
            &api_key,
            begin.elapsed().as_secs_f64(),
        );
        say(format_args!("{text}"));
        std::future::pending::<anyhow::Result<()>>().await
    };
    let outcome = tokio::select! {
        failed = life => failed,
        () = control.serve(fleet.clone(), stop) => Ok(()),
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
        _ = stopped.recv() => Ok(()),
    };

    say(format_args!("stopping"));
    for line in fleet.stop_all().await {
        say(format_args!("  {line}"));
    }
    if let Some(s3) = s3 {
        s3.shutdown().await;
    }
    outcome.map(|()| ExitCode::SUCCESS)
}

/// The built-in S3 server, unless the user brought a store.
async fn own_store(layout: &Layout, birth: &Birth) -> anyhow::Result<Option<RunningS3>> {
    if birth.object_store.is_some() {
        return Ok(None);
    }
    // Any free port: the nodes are told anew at each start, and nothing else depends on it.
    let config = S3Config {
        listen: plan::loopback(0),
        root: layout.s3_root(),
        access_key: plan::S3_ACCESS_KEY.to_owned(),
        secret_key: birth.s3_secret_key.clone(),
        bucket: plan::S3_BUCKET.to_owned(),
        conditional_writes: ConditionalWrites::default(),
    };
    let s3 = confman_dev_s3::serve(config)
        .await
        .context("start the built-in S3 server")?;
    Ok(Some(s3))
}

/// The admin key and the cluster token: those of the first run, else new ones.
fn secrets(layout: &Layout) -> anyhow::Result<String> {
    if read_secret(&layout.cluster_token())?.is_none() {
        write_private(&layout.cluster_token(), &new_secret())?;
    }
    if let Some(key) = read_secret(&layout.api_key())? {
        return Ok(key);
    }
    let key = crate::auth::create_key(&layout.api_keys(), KEY_NAME, crate::auth::Role::Admin)
        .with_context(|| format!("make a key in {}", layout.api_keys().display()))?;
    write_private(&layout.api_key(), &key)?;
    Ok(key)
}

/// A wrong setting of the user's is told here, once, instead of by every node in its log.
fn check_settings(node: &NodePlan) -> anyhow::Result<()> {
    let env = node
        .env
        .iter()
        .map(|(name, value)| (name.into(), value.into()));
    match confman_config::Settings::from_env(env) {
        Ok(_) => Ok(()),
        Err(errors) => anyhow::bail!("{} would refuse its settings:\n{errors}", node.name),
    }
}

/// Prints a line; nobody may be reading, and the cluster goes on all the same.
fn say(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn new_secret() -> String {
    // Two v4 UUIDs: 244 bits from the operating system.
    format!(
        "{}{}",
        uuid::Uuid::new_v4().simple(),
        uuid::Uuid::new_v4().simple()
    )
}
