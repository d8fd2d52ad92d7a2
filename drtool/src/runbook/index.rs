//! The pages, and which failure each of them is for.
//!
//! Promises: each of the nine ways in which a replicated configuration service fails has a page, and each page stands under
//! exactly one of them, or under work that somebody planned.

/// One page: its name, and its text.
pub(super) type Page = (&'static str, &'static str);

/// What something is about, and the pages for it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Section {
    pub(super) about: &'static str,
    pub(super) pages: &'static [Page],
}

macro_rules! pages {
    ($($name:literal),+) => {
        &[$(($name, include_str!(concat!("../../runbooks/", $name, ".md")))),+]
    };
}

/// The ways in which a replicated configuration service fails.
pub(super) const FAILURES: [Section; 9] = [
    Section {
        about: "1. A node stops; its disk is whole",
        pages: pages!["lost-one-node"],
    },
    Section {
        about: "2. A node loses its disk, or has an old or damaged one",
        pages: pages!["lost-a-disk"],
    },
    Section {
        about: "3. A majority is lost for good, or comes back after the cluster went on without it",
        pages: pages!["lost-quorum", "two-incarnations"],
    },
    Section {
        about: "4. Every node is lost",
        pages: pages!["lost-everything"],
    },
    Section {
        about: "5. The content is wrong: a mistake that was replicated faithfully",
        pages: pages!["point-in-time"],
    },
    Section {
        about: "6. Bytes are damaged, or replicas differ",
        pages: pages!["damaged-snapshot"],
    },
    Section {
        about: "7. The object store does not answer",
        pages: pages!["store-unreachable"],
    },
    Section {
        about: "8. A disk is full",
        pages: pages!["disk-full"],
    },
    Section {
        about: "9. Nodes do not hear each other, one falls behind, or a clock is wrong",
        pages: pages!["partition", "slow-follower", "wrong-clock"],
    },
];

/// Everything else.
const OTHER: [Section; 2] = [
    Section {
        about: "At birth",
        pages: pages!["cluster-does-not-form"],
    },
    Section {
        about: "Planned work",
        pages: pages![
            "drill",
            "change-members",
            "rolling-upgrade",
            "rotate-keys",
            "containers"
        ],
    },
];

/// All sections, failures first.
pub(super) fn sections() -> impl Iterator<Item = Section> {
    FAILURES.into_iter().chain(OTHER)
}

/// The page of that name.
pub(super) fn page(name: &str) -> Option<&'static str> {
    let mut pages = sections().flat_map(|section| section.pages);
    pages.find(|(n, _)| *n == name).map(|(_, text)| *text)
}

/// The first line of a page.
pub(super) fn title(page: &str) -> &str {
    page.lines()
        .next()
        .unwrap_or_default()
        .trim_start_matches("# ")
}
