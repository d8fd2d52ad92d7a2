//! Who is let in, with what is remembered from before.

use super::*;

const UUID: &str = "7a3f9c01-0000-4000-8000-000000000001";

fn own(id: u64) -> Own {
    Own {
        node: proto::Node {
            id,
            name: format!("node{id}"),
            boot: 7,
            // Nobody answers there.
            peer_addr: "127.0.0.1:9".to_owned(),
            ..Default::default()
        },
        cluster_uuid: UUID.to_owned(),
        incarnation: 1,
        lineage: String::new(),
    }
}

/// Node 2 of that boot introduces itself; its log ended there when it started.
fn introduction(boot: u64, end: u64) -> proto::HelloRequest {
    let standing = proto::Standing {
        group: "config/0".to_owned(),
        vote_term: 3,
        end,
    };
    let mut own = own(2);
    own.node.boot = boot;
    proto::HelloRequest {
        introducing: true,
        standings: vec![standing],
        ..question(&own)
    }
}

fn new() -> Arc<Acquaintances> {
    let channels = Channels::new(None, None).expect("channels");
    Acquaintances::new(7, channels)
}

/// An earlier process knew that node 2, then of boot 20, acknowledged entry 9.
fn kept() -> NodePromises {
    NodePromises {
        id: 2,
        boot: 20,
        groups: vec![GroupPromise {
            group: "config/0".to_owned(),
            voted: 3,
            acked_term: 3,
            acked_end: 10,
            kept_end: 8,
        }],
    }
}

#[tokio::test]
async fn d08_nobody_is_let_in_before_it_is_known_what_was_promised() {
    let known = new();
    // Its groups are being opened: it has not looked into its memory yet.
    assert_eq!(known.answer(&own(1), &introduction(30, 5)).await, None);
    assert_eq!(known.boot_of(2), 0, "it was let in");
    known.recall(&[kept()]);
    known.become_node(own(1), Vec::new());
    let rejected = known.answer(&own(1), &introduction(30, 5)).await;
    assert_eq!(rejected.map(|r| r.refusal), Some(Refusal::OlderDirectory));
    // Kept is who was sound, and not the copy: the next process must not take it for heard.
    assert_eq!(known.recollect(), [kept()]);
}

#[tokio::test]
async fn d08_who_goes_on_is_taken_for_what_it_is_and_its_next_process_is_judged() {
    let known = new();
    known.recall(&[kept()]);
    known.become_node(own(1), Vec::new());
    assert_eq!(known.answer(&own(1), &introduction(20, 5)).await, None);
    assert_eq!(known.boot_of(2), 20);
    assert_eq!(known.recollect(), [kept()]);
    let later = new();
    later.recall(&known.recollect());
    later.become_node(own(1), Vec::new());
    assert_eq!(later.answer(&own(1), &introduction(21, 10)).await, None);
    assert_eq!(later.recollect()[0].boot, 21);
    let later = new();
    later.recall(&known.recollect());
    later.become_node(own(1), Vec::new());
    assert!(later.answer(&own(1), &introduction(21, 9)).await.is_some());
}

/// A process that slept while a copy of its directory took its place may wake up and answer what it was asked before.
#[tokio::test]
async fn i14_what_a_process_answers_after_its_place_was_taken_does_not_count() {
    let known = new();
    known.become_node(own(1), Vec::new());
    assert_eq!(known.answer(&own(1), &introduction(20, 5)).await, None);
    let acks = |boot, end: u64| {
        let promised = known.promised("config/0", 2);
        known.count(2, boot, || promised.lock().acked(3, end - 1, end))
    };
    acks(20, 3).expect("it speaks for its node");
    let copy = introduction(21, 5);
    assert_eq!(known.answer(&own(1), &copy).await, None);
    acks(21, 5).expect("it took the place");
    let status = acks(20, 9).expect_err("its place was taken");
    // Whoever asked is not to blame: this must not end its process, as being taken for a second one would.
    assert_eq!(Refusal::of(&status), Some(Refusal::NotServing));
    // Who starts with what the node has is not judged by what the other wrote down when its time was over.
    assert_eq!(known.answer(&own(1), &introduction(22, 5)).await, None);
    // And with less than was counted it is not spoken to.
    let older = known.answer(&own(1), &introduction(23, 4)).await;
    assert_eq!(older.map(|r| r.refusal), Some(Refusal::OlderDirectory));
    assert!(acks(22, 6).is_err() && acks(23, 6).is_err());
}
