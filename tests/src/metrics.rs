//! What a node's `/metrics` says, read as Prometheus reads it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;

use crate::cluster::Cluster;

/// One page: the series, as they are written, with their values.
#[derive(Debug, Clone, Default)]
pub struct Page(BTreeMap<String, f64>);

impl Page {
    /// Reads a page.
    ///
    /// # Errors
    /// A line is neither a comment nor a series with a number.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let lines = text.lines().map(str::trim);
        let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        let series = lines.map(|line| {
            let (series, value) = line.rsplit_once(' ').context("a line without a value")?;
            let value = value.parse().with_context(|| format!("read {line:?}"))?;
            Ok((series.to_owned(), value))
        });
        Ok(Self(series.collect::<anyhow::Result<_>>()?))
    }

    /// A series, as it is written: `confman_ready{group="config/0"}`.
    #[must_use]
    pub fn get(&self, series: &str) -> Option<f64> {
        self.0.get(series).copied()
    }

    /// The series of a metric, those of a histogram too.
    pub fn of<'a>(&'a self, metric: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        let of_it = move |series: &str| {
            let name = series.split('{').next().unwrap_or(series);
            let of_a_histogram = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|suffix| name.strip_suffix(suffix));
            name == metric || of_a_histogram == Some(metric)
        };
        let all = self
            .0
            .iter()
            .map(|(series, value)| (series.as_str(), *value));
        all.filter(move |(series, _)| of_it(series))
    }

    /// The sum over the series of a counter or gauge that have all of these labels, written `name="value"`.
    #[must_use]
    pub fn sum(&self, metric: &str, labels: &[&str]) -> f64 {
        self.of(metric)
            .filter(|(series, _)| labels.iter().all(|label| series.contains(label)))
            .map(|(_, value)| value)
            .sum()
    }
}

impl Cluster {
    /// The metrics of one node.
    ///
    /// # Errors
    /// It does not answer, or not with metrics.
    pub async fn metrics(&self, index: usize) -> anyhow::Result<Page> {
        let asked = self.api(index).get("/metrics");
        let answer = asked.timeout(Duration::from_secs(5)).send().await?;
        Page::parse(&answer.expect(&[200])?.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_found_by_metric_and_label() {
        let text = "# HELP a b\n# TYPE a counter\na{k=\"v\",l=\"x y\"} 2\na{k=\"w\"} 3\nab 7\n\nt_bucket{le=\"+Inf\"} 1\nt_sum 0.5\nn NaN\n";
        let page = Page::parse(text).unwrap();
        assert_eq!(page.get("a{k=\"w\"}"), Some(3.0));
        assert_eq!(page.of("a").count(), 2);
        assert_eq!(page.of("t").count(), 2);
        assert_eq!(page.sum("a", &["k=\"v\""]), 2.0);
        assert_eq!(page.sum("a", &[]), 5.0);
        assert!(page.get("n").is_some_and(f64::is_nan));
        assert!(Page::parse("a b c").is_err());
    }
}
