//! Where to send the next attempt, and after what pause. Pure: no clock, no network.

use std::time::Duration;

use crate::Endpoint;

/// Redirects in a row before the nodes are taken to be in disagreement.
const HOPS_MAX: u32 = 4;
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// How an attempt ended, when it did not end the call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Setback {
    /// No connection: nothing was sent.
    NotReached,
    /// Sent, and no usable answer.
    Lost,
    /// 503: some of it is done, and the next attempt goes on.
    Progressed,
    /// 503: the node cannot now, and may say when.
    Busy { retry_after: Option<Duration> },
    /// 307 to a host that may be asked.
    Redirected { to: Endpoint },
}

/// The way of one call through the cluster.
#[derive(Debug)]
pub(crate) struct Course {
    homes: Vec<Endpoint>,
    home: usize,
    /// Setbacks since the last pause.
    misses: usize,
    rounds: u32,
    hops: u32,
    /// Who redirected to the current one.
    via: Option<Endpoint>,
    current: Endpoint,
    forward: bool,
}

impl Course {
    /// Begins at `start`, a known leader, else at the first of `homes`, which are not empty.
    pub(crate) fn new(homes: Vec<Endpoint>, start: Option<Endpoint>, fallback: Endpoint) -> Self {
        let current = start.or_else(|| homes.first().cloned()).unwrap_or(fallback);
        let home = homes
            .iter()
            .position(|home| *home == current)
            .unwrap_or(homes.len().saturating_sub(1));
        Self {
            homes,
            home,
            misses: 0,
            rounds: 0,
            hops: 0,
            via: None,
            current,
            forward: false,
        }
    }

    pub(crate) fn current(&self) -> &Endpoint {
        &self.current
    }

    /// The node is to forward the write itself, because this client cannot reach the leader.
    pub(crate) fn forward(&self) -> bool {
        self.forward
    }

    /// Chooses the next node; the pause is before jitter.
    pub(crate) fn after(&mut self, setback: Setback) -> Duration {
        match setback {
            Setback::Redirected { to } if self.hops < HOPS_MAX => {
                self.hops += 1;
                self.via = Some(std::mem::replace(&mut self.current, to));
                Duration::ZERO
            }
            // The nodes send it in circles: an election is going on.
            Setback::Redirected { .. } => self.rest(Duration::ZERO),
            Setback::NotReached => match self.via.take() {
                Some(via) if !self.forward => {
                    self.current = via;
                    self.forward = true;
                    self.hops = 0;
                    Duration::ZERO
                }
                _ => self.rotate(Duration::ZERO),
            },
            Setback::Lost => self.rotate(Duration::ZERO),
            // Not to be hurried: what is deleted has to be applied everywhere.
            Setback::Progressed => {
                self.misses = 0;
                self.rounds = 0;
                PAUSE_FIRST
            }
            Setback::Busy { retry_after } => {
                self.rotate(retry_after.unwrap_or_default().min(PAUSE_MAX))
            }
        }
    }

    /// The next home at once; a pause when all had their turn.
    fn rotate(&mut self, at_least: Duration) -> Duration {
        self.misses += 1;
        if self.misses >= self.homes.len() {
            return self.rest(at_least);
        }
        self.go_home();
        Duration::ZERO
    }

    fn rest(&mut self, at_least: Duration) -> Duration {
        self.go_home();
        self.misses = 0;
        self.rounds += 1;
        let factor = 1u32 << (self.rounds - 1).min(10);
        PAUSE_FIRST
            .saturating_mul(factor)
            .min(PAUSE_MAX)
            .max(at_least)
    }

    fn go_home(&mut self) {
        self.hops = 0;
        self.via = None;
        self.home = (self.home + 1) % self.homes.len().max(1);
        if let Some(home) = self.homes.get(self.home) {
            self.current = home.clone();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u32) -> Endpoint {
        format!("http://n{n}:6100").parse().unwrap()
    }

    fn course(start: Option<Endpoint>) -> Course {
        Course::new(vec![node(1), node(2), node(3)], start, node(1))
    }

    #[test]
    fn every_node_has_its_turn_before_the_first_pause() {
        let mut course = course(None);
        let mut seen = vec![course.current().clone()];
        let mut pauses = Vec::new();
        for _ in 0..5 {
            pauses.push(course.after(Setback::NotReached).as_millis());
            seen.push(course.current().clone());
        }
        assert_eq!(seen, [node(1), node(2), node(3), node(1), node(2), node(3)]);
        assert_eq!(pauses, [0, 0, 50, 0, 0]);
    }

    #[test]
    fn a_busy_cluster_is_left_the_time_it_asks_for() {
        let mut course = course(None);
        let busy = || Setback::Busy {
            retry_after: Some(Duration::from_secs(1)),
        };
        let pauses: Vec<_> = (0..3).map(|_| course.after(busy()).as_millis()).collect();
        assert_eq!(pauses, [0, 0, 1000]);
        let long = Setback::Busy {
            retry_after: Some(Duration::from_secs(3600)),
        };
        let pauses: Vec<_> = (0..3)
            .map(|_| course.after(long.clone()).as_millis())
            .collect();
        assert_eq!(pauses, [0, 0, 2000]);
    }

    #[test]
    fn pauses_grow_to_a_bound() {
        let mut course = Course::new(vec![node(1)], None, node(1));
        let pauses: Vec<_> = (0..40)
            .map(|_| course.after(Setback::Lost).as_millis())
            .collect();
        assert_eq!(pauses[..7], [50, 100, 200, 400, 800, 1600, 2000]);
        assert!(pauses[7..].iter().all(|&p| p == 2000));
    }

    #[test]
    fn redirects_are_followed_and_circles_are_left() {
        let mut course = course(None);
        for n in [2, 3, 2, 3] {
            assert_eq!(
                course.after(Setback::Redirected { to: node(n) }),
                Duration::ZERO
            );
            assert_eq!(*course.current(), node(n));
        }
        assert_eq!(
            course.after(Setback::Redirected { to: node(2) }),
            Duration::from_millis(50)
        );
    }

    #[test]
    fn a_leader_that_only_the_nodes_can_reach_is_reached_through_them() {
        let mut course = course(None);
        course.after(Setback::Redirected { to: node(9) });
        assert!(!course.forward());
        assert_eq!(course.after(Setback::NotReached), Duration::ZERO);
        assert_eq!(*course.current(), node(1));
        assert!(course.forward());
    }

    #[test]
    fn a_known_leader_outside_the_list_is_asked_first() {
        let mut course = course(Some(node(7)));
        assert_eq!(*course.current(), node(7));
        course.after(Setback::NotReached);
        assert_eq!(*course.current(), node(1));
    }
}
