//! A way from one process to another that takes its time: what is sent through it arrives later, whole and in order.
//!
//! Made for kernels without netem, and where everything is on loopback. It is a TCP proxy that holds each piece back for the time
//! that is set, in each direction for itself. It limits no throughput, as a long cable does not: what is sent while earlier pieces are under
//! way is under way beside them. An end of a connection is held back as its last bytes are.
//!
//! What it is not: packets. A connection is made at once, whatever the delay, and then found open or closed after it; nothing is lost
//! and nothing overtakes.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

use crate::cluster::PATIENCE;
use crate::http::Api;
use crate::random::Random;
use crate::wait::wait_until;

/// Read at once.
const PIECE_BYTES: usize = 64 * 1024;
/// Pieces under way in one direction: far more than a sender has unacknowledged.
const PIECES_MAX: usize = 4096;

/// How long things take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Delay {
    /// At least, in each direction.
    pub each_way: Duration,
    /// And up to so much more, by chance.
    pub jitter: Duration,
}

impl Delay {
    /// That many milliseconds each way, and up to so many more.
    #[must_use]
    pub fn millis(each_way: u64, jitter: u64) -> Self {
        Self {
            each_way: Duration::from_millis(each_way),
            jitter: Duration::from_millis(jitter),
        }
    }

    fn draw(self, random: &mut Random) -> Duration {
        let jitter = usize::try_from(self.jitter.as_micros()).unwrap_or_default();
        self.each_way + Duration::from_micros(random.below(jitter + 1) as u64)
    }
}

#[derive(Debug, Default)]
struct Delays {
    all: Delay,
    from: HashMap<IpAddr, Delay>,
}

/// The way to one listener; dropping it ends what goes through it.
#[derive(Debug)]
pub struct Link {
    address: SocketAddr,
    delays: Arc<Mutex<Delays>>,
    closed: Arc<AtomicBool>,
    accepting: JoinHandle<()>,
}

impl Link {
    /// From `listen` to `to`, without delay yet.
    ///
    /// # Errors
    /// It cannot listen there.
    pub async fn lay(listen: SocketAddr, to: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(listen)
            .await
            .with_context(|| format!("listen on {listen}"))?;
        let delays = Arc::new(Mutex::new(Delays::default()));
        let closed = Arc::new(AtomicBool::new(false));
        Ok(Self {
            address: listener.local_addr()?,
            delays: Arc::clone(&delays),
            closed: Arc::clone(&closed),
            accepting: tokio::spawn(accept(listener, to, delays, closed)),
        })
    }

    /// Nobody gets through any more who has no connection yet; those that are there live on. So who knows each other stays
    /// together, and who comes later is cut off.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    /// Where it begins.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How long it takes from now on, for everybody.
    pub fn set(&self, delay: Delay) {
        let mut delays = lock(&self.delays);
        delays.from.clear();
        delays.all = delay;
    }

    /// How long it takes from now on for who connects from that address.
    pub fn set_for(&self, from: IpAddr, delay: Delay) {
        lock(&self.delays).from.insert(from, delay);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn lock(delays: &Mutex<Delays>) -> std::sync::MutexGuard<'_, Delays> {
    delays.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(
    listener: TcpListener,
    to: SocketAddr,
    delays: Arc<Mutex<Delays>>,
    closed: Arc<AtomicBool>,
) {
    // They end with this task.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, from)) = accepted && !closed.load(Ordering::SeqCst) {
                    connections.spawn(connect(stream, from.ip(), to, Arc::clone(&delays)));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connect(near: TcpStream, from: IpAddr, to: SocketAddr, delays: Arc<Mutex<Delays>>) {
    // Nobody there: the connection ends, which the other side hears.
    let Ok(far) = TcpStream::connect(to).await else {
        return;
    };
    // What would wait for more bytes would be a delay that nobody set.
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    tokio::join!(
        carry(near_read, far_write, from, &delays),
        carry(far_read, near_write, from, &delays),
    );
}

/// One direction, to its end.
async fn carry(from: OwnedReadHalf, to: OwnedWriteHalf, who: IpAddr, delays: &Mutex<Delays>) {
    let (sender, receiver) = mpsc::channel(PIECES_MAX);
    tokio::join!(take(from, sender, who, delays), give(receiver, to));
}

/// When it is due, and what; nothing is the end.
type Piece = (Instant, Vec<u8>);

async fn take(
    mut from: OwnedReadHalf,
    under_way: mpsc::Sender<Piece>,
    who: IpAddr,
    delays: &Mutex<Delays>,
) {
    let mut random = Random::new(Random::seed());
    let mut due = Instant::now();
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        // A connection that was reset is one that ended.
        let length = from.read(&mut buffer).await.unwrap_or_default();
        let delay = {
            let delays = lock(delays);
            delays.from.get(&who).copied().unwrap_or(delays.all)
        };
        // Nothing overtakes what was sent before it.
        due = due.max(Instant::now() + delay.draw(&mut random));
        let piece = (due, buffer[..length].to_vec());
        if under_way.send(piece).await.is_err() || length == 0 {
            return;
        }
    }
}

async fn give(mut under_way: mpsc::Receiver<Piece>, mut to: OwnedWriteHalf) {
    while let Some((due, bytes)) = under_way.recv().await {
        sleep_until(due).await;
        let given = match bytes.is_empty() {
            true => to.shutdown().await,
            false => to.write_all(&bytes).await,
        };
        if given.is_err() {
            return;
        }
    }
}

/// How long a node takes to ask another one on the port that Raft uses, by its own account.
///
/// # Errors
/// It does not reach it in time.
pub async fn reach(from: &Api, name: &str) -> anyhow::Result<Duration> {
    // A node that was just born knows nobody yet.
    wait_until(&format!("{name} is reached"), PATIENCE, || async {
        let told = from.get_json("/api/v1/status/peers").await?;
        let items = told["items"].as_array();
        let mut peers = items.into_iter().flatten();
        let peer = peers.find(|peer| peer["name"] == name && peer["reached"] == true);
        let seconds = peer.and_then(|peer| peer["seconds"].as_f64());
        let seconds = seconds.with_context(|| format!("no {name} in {told}"))?;
        Ok(Duration::from_secs_f64(seconds))
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const HERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

    /// Gives back what it is sent, on each connection.
    async fn echo() -> anyhow::Result<SocketAddr> {
        let listener = TcpListener::bind(HERE).await?;
        let address = listener.local_addr()?;
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.into_split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        Ok(address)
    }

    async fn round_trip(stream: &mut TcpStream) -> anyhow::Result<Duration> {
        let begin = Instant::now();
        stream.write_all(b"ping").await?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).await?;
        anyhow::ensure!(&answer == b"ping", "{answer:?}");
        Ok(begin.elapsed())
    }

    #[tokio::test]
    async fn a_round_trip_takes_twice_the_delay_and_no_longer_when_it_is_gone() -> anyhow::Result<()>
    {
        let link = Link::lay(HERE, echo().await?).await?;
        link.set(Delay::millis(200, 0));
        let mut stream = TcpStream::connect(link.address()).await?;
        let took = round_trip(&mut stream).await?;
        assert!(took >= Duration::from_millis(400), "{took:?}");
        link.set_for(IpAddr::V4(Ipv4Addr::LOCALHOST), Delay::default());
        let took = round_trip(&mut stream).await?;
        assert!(took < Duration::from_millis(400), "{took:?}");
        link.set(Delay::millis(100, 100));
        let took = round_trip(&mut stream).await?;
        assert!(took >= Duration::from_millis(200), "{took:?}");
        Ok(())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn much_is_under_way_at_once_and_comes_out_as_it_went_in() -> anyhow::Result<()> {
        const BYTES: usize = 8 * 1024 * 1024;
        let link = Link::lay(HERE, echo().await?).await?;
        link.set(Delay::millis(200, 20));
        let stream = TcpStream::connect(link.address()).await?;
        let (mut read, mut write) = stream.into_split();
        let sent: Vec<u8> = (0..BYTES).map(|n| (n / 7 % 251) as u8).collect();
        let copy = sent.clone();
        let begin = Instant::now();
        let sending = tokio::spawn(async move {
            write.write_all(&copy).await?;
            write.shutdown().await
        });
        let mut came = Vec::new();
        read.read_to_end(&mut came).await?;
        sending.await??;
        assert!(came == sent, "{} bytes came", came.len());
        // One after the other, 128 pieces would take 25 s each way.
        let took = begin.elapsed();
        assert!(took < Duration::from_secs(10), "{took:?}");
        Ok(())
    }

    #[tokio::test]
    async fn a_closed_one_lets_nobody_in_and_ends_nothing() -> anyhow::Result<()> {
        let link = Link::lay(HERE, echo().await?).await?;
        let mut before = TcpStream::connect(link.address()).await?;
        round_trip(&mut before).await?;
        link.close();
        let mut after = TcpStream::connect(link.address()).await?;
        assert!(round_trip(&mut after).await.is_err());
        round_trip(&mut before).await?;
        Ok(())
    }

    #[tokio::test]
    async fn where_nobody_listens_the_connection_ends() -> anyhow::Result<()> {
        let nobody = TcpListener::bind(HERE).await?.local_addr()?;
        let link = Link::lay(HERE, nobody).await?;
        let mut stream = TcpStream::connect(link.address()).await?;
        let mut came = Vec::new();
        // As a reset or as an end.
        let _ = stream.read_to_end(&mut came).await;
        assert!(came.is_empty());
        Ok(())
    }
}
