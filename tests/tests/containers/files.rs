//! What the container files say twice, because their formats know no other way, they say alike.

use std::path::PathBuf;

use anyhow::{Context as _, ensure};

fn compose(file: &str) -> anyhow::Result<String> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../compose");
    let path = path.join(file);
    std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
}

/// What follows `start`, to the end of its line.
fn rest_of_line<'a>(text: &'a str, start: &str) -> anyhow::Result<&'a str> {
    let (_, rest) = text
        .split_once(start)
        .with_context(|| format!("no {start:?}"))?;
    Ok(rest.lines().next().unwrap_or_default())
}

#[test]
fn both_dockerfiles_make_the_same_image() -> anyhow::Result<()> {
    let stage = |text: &str| {
        let at = text.find("FROM scratch AS confman").context("no stage")?;
        anyhow::Ok(text[at..].to_owned())
    };
    let (sources, programs) = (compose("Dockerfile")?, compose("prebuilt.Dockerfile")?);
    ensure!(stage(&sources)? == stage(&programs)?, "the stages differ");
    Ok(())
}

#[test]
fn every_file_names_the_same_builder_by_its_digest() -> anyhow::Result<()> {
    let builder = compose("Dockerfile")?;
    let builder = rest_of_line(&builder, "ARG BUILDER_IMAGE=")?;
    ensure!(builder.contains("@sha256:"), "{builder} has no digest");
    let rust = concat!("rust:", env!("CARGO_PKG_RUST_VERSION"), "-");
    ensure!(builder.contains(rust), "{builder} is not {rust}");
    let prebuilt = compose("prebuilt.Dockerfile")?;
    let prebuilt = rest_of_line(&prebuilt, "ARG BUILDER_IMAGE=")?;
    ensure!(prebuilt == builder, "prebuilt.Dockerfile names {prebuilt}");
    let text = compose("docker-compose.yml")?;
    let named = rest_of_line(&text, "BUILDER_IMAGE: ${BUILDER_IMAGE:-")?;
    ensure!(named == format!("{builder}}}"), "it names {named}");
    // Once: several builds of one name get in each other's way.
    for (file, builds) in [
        ("docker-compose.yml", 1),
        ("tls.yml", 0),
        ("s3.yml", 0),
        ("seaweedfs.yml", 0),
    ] {
        let found = compose(file)?.matches(" build:\n").count();
        ensure!(found == builds, "{file} builds {found} times");
    }
    Ok(())
}

#[test]
fn prometheus_watches_the_same_with_tls_and_without() -> anyhow::Result<()> {
    let told = |text: &str| -> Vec<String> {
        let lines = text.lines().map(str::trim);
        let told = lines.filter(|line| !line.starts_with('#') && !line.is_empty());
        told.map(str::to_owned).collect()
    };
    let plain = told(&compose("prometheus/prometheus.yml")?);
    let mut tls = told(&compose("prometheus/prometheus-tls.yml")?);
    let before = tls.len();
    tls.retain(|line| {
        !["scheme: https", "tls_config:"].contains(&line.as_str()) && !line.starts_with("ca_file:")
    });
    ensure!(before == tls.len() + 3, "prometheus-tls.yml speaks no TLS");
    ensure!(plain == tls, "{plain:?}\n{tls:?}");
    Ok(())
}

/// Who has keys of an account in the shell would hand them to containers that know nothing of that account.
#[test]
fn no_container_is_given_the_account_of_the_shell() -> anyhow::Result<()> {
    for file in [
        "docker-compose.yml",
        "seaweedfs.yml",
        "monitoring.yml",
        "tls.yml",
        "tls-monitoring.yml",
    ] {
        let text = compose(file)?;
        ensure!(!text.contains("${AWS_"), "{file} takes AWS_* of the shell");
    }
    Ok(())
}
