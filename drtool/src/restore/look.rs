//! The look at the addresses of a plan: before the operator is asked, and again right before the order, which begins a life.

use confman_cli::failure::Failure;

use super::alive::{Address, AskArgs, Found};
use super::make::refuse_alive;
use super::members::addresses_of;
use super::plan::RestorePlan;
use crate::context::Global;
use crate::look::LastLook;

/// Whom to look for, and when that was done last.
pub(super) struct Look<'a> {
    ask: AskArgs,
    addresses: Vec<Address>,
    cluster_uuid: String,
    global: &'a Global,
    last: LastLook,
}

impl<'a> Look<'a> {
    /// At everybody that the plan knows of and wherever else the operator knows of nodes; `last` is when its maker did.
    pub(super) fn new(
        plan: &RestorePlan,
        ask: &AskArgs,
        last: LastLook,
        global: &'a Global,
    ) -> Self {
        let probed = plan.probes.iter().map(|p| Address {
            name: p.name.clone(),
            api_url: p.api_url.clone(),
            peer_addr: String::new(),
        });
        let addresses = probed.chain(addresses_of(&plan.order.members)).collect();
        let mut ask = ask.clone();
        // What was said of an address when the plan was made stands in the plan.
        let foreign = plan.probes.iter().filter(|p| p.found == Found::NotOurs);
        ask.not_ours
            .extend(&foreign.map(|p| p.api_url.clone()).collect());
        Self {
            ask,
            addresses,
            cluster_uuid: plan.cluster.uuid.clone(),
            global,
            last,
        }
    }

    /// Whether the last look still counts.
    pub(super) fn is_good(&self) -> bool {
        self.last.is_good()
    }

    /// Refuses when somebody lives, or may live.
    pub(super) async fn refuse(&mut self) -> Result<(), Failure> {
        self.last = LastLook::now();
        let asked = self
            .ask
            .probe(self.addresses.clone(), &self.cluster_uuid, self.global);
        let probed = asked.await?;
        refuse_alive(&probed)
    }
}
