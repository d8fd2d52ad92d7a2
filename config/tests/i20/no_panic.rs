//! I20 and I19: whatever the environment holds, the answer is settings or reasons, never a panic.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use crate::common::{Fake, env, machine};
use confman_config::catalog;
use confman_config::{ClientSettings, Settings, store_environment};
use proptest::prelude::*;

fn any_os() -> impl Strategy<Value = OsString> {
    prop_oneof![
        any::<String>().prop_map(|text| OsString::from(text.replace('\0', ""))),
        prop::collection::vec(1_u8.., 0..40).prop_map(OsString::from_vec),
    ]
}

/// Names that are ours, and values made of the pieces that parsers look for.
fn near_misses() -> impl Strategy<Value = Vec<(OsString, OsString)>> {
    let names: Vec<String> = catalog::names().collect();
    let pieces = prop::sample::select(vec![
        "http://",
        "https://",
        "s3://",
        "file://",
        "{data}",
        "{",
        "/",
        ":",
        "=",
        ",",
        "@",
        "[",
        "]",
        "::",
        "0",
        "1",
        "65535",
        "65536",
        "18446744073709551616",
        "-",
        "node1",
        "localhost",
        "127.0.0.1",
        "é",
        "\u{202e}",
        "\n",
        "\0x1b",
        "true",
        "info",
        "zstd",
        "..",
        "?",
        "#",
        "%",
        "xn--",
        " ",
    ]);
    let value =
        prop::collection::vec(pieces, 0..8).prop_map(|parts| OsString::from(parts.concat()));
    let name = prop_oneof![
        4 => prop::sample::select(names).prop_map(OsString::from),
        1 => any_os().prop_map(|rest| {
            let mut name = OsString::from("CONFMAN_");
            name.push(rest);
            name
        }),
        1 => any_os(),
    ];
    prop::collection::vec((name, prop_oneof![3 => value, 1 => any_os()]), 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn i20_no_environment_panics(env in near_misses(), host_name in any::<Option<String>>(), content in any::<Vec<u8>>()) {
        let machine = Fake { host_name, files: [("node1", content)].into() };
        for errors in [
            Settings::resolve(env.clone(), &machine).err(),
            ClientSettings::resolve(env.clone(), &machine).err(),
        ].into_iter().flatten() {
            prop_assert!(!errors.all().is_empty());
            for error in errors.all() {
                prop_assert!(!error.hint().is_empty());
                let text = error.to_string();
                prop_assert!(!text.chars().any(char::is_control), "{text:?}");
                prop_assert!(text.len() < 3000, "{text}");
            }
        }
        let _ = store_environment(env);
    }

    #[test]
    fn i20_what_is_shown_reads_back_the_same(env in near_misses()) {
        let machine = machine();
        if let Ok(settings) = Settings::resolve(env, &machine) {
            let shown: Vec<(OsString, OsString)> = settings
                .effective()
                .into_iter()
                .filter(|shown| shown.name != catalog::CLUSTER_TOKEN.name)
                .filter_map(|shown| Some((shown.name.into(), shown.value?.into())))
                .collect();
            let again = Settings::resolve(shown, &machine);
            let again = again.map_err(|errors| TestCaseError::fail(errors.to_string()))?;
            let values = |settings: &Settings| {
                settings.effective().into_iter().map(|shown| shown.value).collect::<Vec<_>>()
            };
            let secret = |value: &Option<String>| value.as_deref() == Some("(set, not shown)");
            for (value, again) in values(&settings).iter().zip(values(&again)) {
                prop_assert!(*value == again || secret(value), "{value:?} {again:?}");
            }
        }
    }
}

#[test]
fn i20_a_huge_environment_is_answered() {
    let long = "x".repeat(1 << 20);
    let many: Vec<(String, String)> = (0..2000)
        .map(|at| {
            (
                format!("CONFMAN_{at}_{}", "y".repeat(90)),
                long[..9].to_owned(),
            )
        })
        .collect();
    let mut pairs: Vec<(&str, &str)> = many
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    for setting in catalog::all() {
        pairs.push((setting.name(), &long));
    }
    let errors = Settings::resolve(env(&pairs), &machine()).expect_err("nonsense");
    assert!(errors.all().len() > 2000);
}
