//! Certificates changed without a restart: the files are read every few seconds, and at once after SIGHUP.
//!
//! What will do is in force for the next handshake. What will not do changes nothing: the credentials of before stay, the
//! log says what is wrong, a metric counts it. Certificate and key are two files, so for a moment they may not belong
//! together: what is wrong is told when it has stayed wrong for two looks.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use confman_tls::{FileErrors, Portrait, rfc3339};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::Tls;

/// How often the files are read.
const LOOK: Duration = Duration::from_secs(5);
/// How often it is told again that they will not do.
const TELL_AGAIN: Duration = Duration::from_secs(600);
/// A certificate that ends within this is worth a line a day.
const ENDS_SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What one look found.
pub(super) enum Look {
    /// The files are those in force.
    Same,
    /// Others, and they are in force now.
    Taken(Portrait),
    /// Others, and they will not do; the digest of what was read, if it could be.
    Refused(Option<[u8; 32]>, FileErrors),
}

impl Tls {
    /// Reads the files again, and takes them if they have changed and will do.
    pub(super) fn look(&self, now: SystemTime) -> Look {
        let contents = match self.files.read() {
            Ok(contents) => contents,
            Err(errors) => return Look::Refused(None, errors),
        };
        let digest = contents.digest();
        let mut known = self.digest.lock();
        if *known == digest {
            return Look::Same;
        }
        match contents.judge(&self.files, now) {
            Ok(credentials) => {
                let portrait = credentials.portrait.clone();
                self.current.store(Arc::new(credentials));
                *known = digest;
                Look::Taken(portrait)
            }
            Err(errors) => Look::Refused(Some(digest), errors),
        }
    }
}

/// Says what is in force.
pub(crate) fn tell(portrait: &Portrait, what: &str) {
    let names = portrait.names.join(",");
    let (ends, ca_ends) = (
        rfc3339(portrait.not_after),
        portrait.ca_not_after.map(rfc3339),
    );
    tracing::info!(certificate = %portrait.fingerprint, names, ends, ca_ends, "{what}");
    for notice in &portrait.notices {
        tracing::warn!("{notice}");
    }
    measure(portrait);
}

/// The times as they are; for Prometheus a float will do.
#[allow(clippy::cast_precision_loss, reason = "seconds of this millennium fit")]
fn measure(portrait: &Portrait) {
    let name = "confman_tls_certificate_expiry_timestamp_seconds";
    metrics::gauge!(name, "certificate" => "node").set(portrait.not_after as f64);
    if let Some(ends) = portrait.ca_not_after {
        metrics::gauge!(name, "certificate" => "authority").set(ends as f64);
    }
}

/// Tells of trouble that stays, not of each look at it.
#[derive(Default)]
struct Trouble {
    /// What was refused at the last look.
    last: Option<(Option<[u8; 32]>, FileErrors)>,
    told: Option<Instant>,
}

impl Trouble {
    /// Whether to tell now: at once when somebody asked for the look, else when it is the same as at the look before.
    fn may(&mut self, found: (Option<[u8; 32]>, FileErrors), asked: bool, now: Instant) -> bool {
        let stays = self.last.as_ref() == Some(&found);
        if !stays {
            self.told = None;
        }
        self.last = Some(found);
        let due = self
            .told
            .is_none_or(|told| now.saturating_duration_since(told) >= TELL_AGAIN);
        let tell = asked || stays && due;
        if tell {
            self.told = Some(now);
        }
        tell
    }
}

/// Keeps the credentials up to date until `stop`.
pub(crate) async fn run(tls: Arc<Tls>, stop: CancellationToken) {
    let mut hangup = match signal(SignalKind::hangup()) {
        Ok(hangup) => Some(hangup),
        Err(error) => {
            tracing::warn!(
                "listen for SIGHUP: {error}; changed certificates are found all the same"
            );
            None
        }
    };
    let mut trouble = Trouble::default();
    let mut warned: Option<Instant> = None;
    loop {
        let asked = tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK) => false,
            () = hung_up(&mut hangup) => true,
        };
        let looking = Arc::clone(&tls);
        let looked = tokio::task::spawn_blocking(move || looking.look(SystemTime::now())).await;
        match looked {
            Ok(Look::Same) => {
                trouble = Trouble::default();
                if asked {
                    tracing::info!("SIGHUP: the TLS files are those in force");
                }
            }
            Ok(Look::Taken(portrait)) => {
                trouble = Trouble::default();
                metrics::counter!("confman_tls_reloads_total", "result" => "ok").increment(1);
                tell(
                    &portrait,
                    "the TLS files have changed and are in force for new connections",
                );
            }
            Ok(Look::Refused(digest, errors)) => {
                let text = errors.on_one_line();
                if trouble.may((digest, errors), asked, Instant::now()) {
                    metrics::counter!("confman_tls_reloads_total", "result" => "refused")
                        .increment(1);
                    tracing::error!(
                        "the TLS files have changed and will not do: those of before stay in force: {text}"
                    );
                }
            }
            Err(error) => tracing::error!("look at the TLS files: {error}"),
        }
        let ends = SystemTime::UNIX_EPOCH
            + Duration::from_secs(tls.current().portrait.not_after.min(1 << 40));
        let soon = ends.duration_since(SystemTime::now()).unwrap_or_default() < ENDS_SOON;
        if soon && warned.is_none_or(|at| at.elapsed() >= DAY) {
            warned = Some(Instant::now());
            let ends = rfc3339(tls.current().portrait.not_after);
            tracing::warn!(
                ends,
                "the certificate of this node ends soon: `drtool runbook rotate-keys`"
            );
        }
    }
}

async fn hung_up(hangup: &mut Option<tokio::signal::unix::Signal>) {
    match hangup {
        Some(signal) => {
            if signal.recv().await.is_none() {
                std::future::pending::<()>().await;
            }
        }
        None => std::future::pending().await,
    }
}
