//! Numbers as people read them.

/// `1.23 GB`: decimal units, three digits.
pub(crate) fn bytes(n: u64) -> String {
    let mut value = n as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 999.5 {
            return if unit == "B" { format!("{n} B") } else { three_digits(value, unit) };
        }
        value /= 1000.0;
    }
    three_digits(value, "TB")
}

fn three_digits(v: f64, unit: &str) -> String {
    let digits = if v < 9.995 { 2 } else { usize::from(v < 99.95) };
    format!("{v:.digits$} {unit}")
}

/// `1 000 000` as `1.00 M`.
pub(crate) fn count(n: u64) -> String {
    let v = n as f64;
    match n {
        0..1000 => n.to_string(),
        1000..1_000_000 => three_digits(v / 1e3, "k"),
        1_000_000..1_000_000_000 => three_digits(v / 1e6, "M"),
        _ => three_digits(v / 1e9, "B"),
    }
}

/// Tokens per second, with a sensible number of digits.
pub(crate) fn rate(tokens: usize, seconds: f64) -> String {
    if tokens == 0 || seconds <= 0.0 {
        return "-".into();
    }
    let rate = tokens as f64 / seconds;
    if rate < 100.0 { format!("{rate:.1}") } else { format!("{rate:.0}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1000), "1.00 kB");
        assert_eq!(bytes(568_400_000), "568 MB");
        assert_eq!(bytes(2_190_000_000), "2.19 GB");
        assert_eq!(bytes(27_000_000_000), "27.0 GB");
        assert_eq!(count(999_885_952), "1000 M");
        assert_eq!(count(268_098_176), "268 M");
        assert_eq!(rate(512, 1.0), "512");
        assert_eq!(rate(0, 1.0), "-");
    }
}
