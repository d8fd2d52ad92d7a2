//! `recover plan`: a collection into a plan, printed and written.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use confman_cli::failure::Failure;
use confman_cli::output;
use confman_snapshot::model::GroupId;

use super::collect::now;
use super::collection::Collection;
use super::decide::{Wishes, decide};
use super::refusal;
use crate::context::Global;

/// Say from a collection who begins the new life of the cluster, and what is lost
///
/// Reads the collection and nothing else. The plan is printed and written; nothing is changed until it is applied.
#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// What `recover collect` wrote
    #[arg(value_name = "COLLECTION", default_value = "collection.json")]
    collection: PathBuf,
    /// The node that begins the new life [default: the one whose logs end last]
    #[arg(long, value_name = "NAME")]
    survivor: Option<String>,
    /// Give up a member: its data is lost for good and there is no other copy; may be given again
    #[arg(long, value_name = "NAME")]
    lost: Vec<String>,
    /// A member that shall not come back; may be given again
    #[arg(long, value_name = "NAME")]
    gone: Vec<String>,
    /// Drop what others have of this group and the survivor does not, committed entries too; may be given again
    #[arg(long, value_name = "GROUP")]
    accept_data_loss: Vec<GroupId>,
    /// Where to write the plan
    #[arg(long, short, value_name = "FILE", default_value = "plan.json")]
    out: PathBuf,
    /// Replace the file if it is there
    #[arg(long)]
    force: bool,
}

pub(crate) fn run(args: &PlanArgs, global: &Global) -> Result<ExitCode, Failure> {
    let collection = Collection::read(&args.collection)?;
    let wishes = Wishes {
        survivor: args.survivor.clone(),
        lost: args.lost.iter().cloned().collect(),
        gone: args.gone.iter().cloned().collect(),
        data_loss: args.accept_data_loss.iter().cloned().collect(),
        plan_id: format!("recovery-{:016x}", rand::random::<u64>()),
        now_us: now().as_us(),
    };
    let plan = decide(&collection, &wishes).map_err(refusal::failure)?;
    plan.write(&args.out, args.force)?;
    if global.json {
        output::json(&plan)?;
    } else {
        output::say(confman_cli::escape::lines(&plan.to_string()));
        let survivor = &plan.survivor;
        output::line(&format!(
            "written to {}; next, on {} with {} stopped: drtool recover apply --plan {} {}",
            args.out.display(),
            survivor.host,
            survivor.info.name,
            args.out.display(),
            survivor.path
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}
