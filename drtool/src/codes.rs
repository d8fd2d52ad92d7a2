//! Every refusal and finding by its stable name: what it means and what to do. `drtool explain CODE` reads this.

/// One stable name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code {
    /// `UPPER_CASE`, never used for anything else.
    pub name: &'static str,
    /// What it means, in a sentence or two.
    pub meaning: &'static str,
    /// What to do.
    pub remedy: &'static str,
}

/// The codes of all rooms. Each room keeps its own table.
pub const ALL: [&[Code]; 6] = [
    COMMON,
    crate::live::CODES,
    crate::store::CODES,
    crate::restore::CODES,
    crate::stopped::CODES,
    crate::recover::CODES,
];

/// The codes that belong to no room.
const COMMON: &[Code] = &[Code {
    name: "CONSENT_NEEDED",
    meaning: "The command would destroy or replace something, and nobody has agreed to the plan that it printed.",
    remedy: "Read the plan. Run the command again with --yes, or on a terminal and type what it asks for.",
}];

/// The code of that name, whatever its case.
#[must_use]
pub fn find(name: &str) -> Option<&'static Code> {
    ALL.iter()
        .flat_map(|room| room.iter())
        .find(|code| code.name.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_there_once_and_says_what_to_do() {
        let mut names: Vec<&str> = Vec::new();
        for code in ALL.iter().flat_map(|room| room.iter()) {
            assert!(
                code.name
                    .bytes()
                    .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_'),
                "{}",
                code.name
            );
            assert!(!names.contains(&code.name), "{} is there twice", code.name);
            assert!(
                !code.meaning.is_empty() && !code.remedy.is_empty(),
                "{}",
                code.name
            );
            names.push(code.name);
        }
        assert_eq!(
            find("consent_needed").map(|code| code.name),
            Some("CONSENT_NEEDED")
        );
    }
}
