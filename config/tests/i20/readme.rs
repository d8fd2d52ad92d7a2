//! The README's settings table is generated from the declarations.
//!
//! `UPDATE_README=1 cargo test -p confman-config readme` writes it.

use std::fs;
use std::path::Path;

use confman_config::readme::{END_MARK, MarksMissing, START_MARK, with_table};
use confman_config::{catalog, readme_table};

#[test]
fn i20_the_readme_lists_every_setting_as_declared() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = fs::read_to_string(&path).expect("the README is at the top of the workspace");
    let wanted = with_table(&readme).expect("the README has a place for the table");
    if std::env::var_os("UPDATE_README").is_some_and(|value| value == "1") {
        fs::write(&path, wanted).expect("the README can be written");
    } else {
        assert!(
            readme == wanted,
            "the README's settings are not those declared\n\
             hint: UPDATE_README=1 cargo test -p confman-config readme"
        );
    }
}

#[test]
fn i20_the_table_has_a_row_for_each_setting() {
    let table = readme_table();
    for name in catalog::names() {
        assert!(table.contains(&format!("`{name}`")), "{name}");
    }
    let rows: Vec<&str> = table
        .lines()
        .filter(|line| line.starts_with("| `CONFMAN_"))
        .collect();
    assert_eq!(rows.len(), catalog::all().count());
    for row in table.lines().filter(|line| line.starts_with('|')) {
        assert_eq!(
            row.replace("\\|", "").matches('|').count(),
            5,
            "four columns: {row}"
        );
    }
}

#[test]
fn i20_the_table_goes_between_its_marks_and_nowhere_else() {
    let readme = format!("before\n{START_MARK}\nold\n{END_MARK}\nafter\n");
    let once = with_table(&readme).expect("marks");
    assert_eq!(
        once,
        format!(
            "before\n{START_MARK}\n{}{END_MARK}\nafter\n",
            readme_table()
        )
    );
    assert_eq!(with_table(&once), Ok(once.clone()));
    for wrong in [
        "no marks".to_owned(),
        format!("{END_MARK} {START_MARK}"),
        format!("{END_MARK} {readme}"),
        START_MARK.to_owned(),
        format!("{readme}{readme}"),
    ] {
        assert_eq!(with_table(&wrong), Err(MarksMissing), "{wrong}");
    }
}
