//! Pictures in requests.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::ApiError;

const BASE64: GeneralPurpose = {
    let padding =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    GeneralPurpose::new(&STANDARD, padding)
};

/// The bytes of a picture that lies in its address (RFC 2397, in base64).
///
/// # Errors
/// For other addresses: nothing is fetched.
pub(crate) fn picture(url: &str) -> Result<Vec<u8>, ApiError> {
    let wrong = |why: &str| ApiError::field("messages", format!("image_url: {why}"));
    let Some(data) = url.strip_prefix("data:") else {
        return Err(wrong(
            "only data: addresses are read, such as data:image/png;base64,…; nothing is fetched from elsewhere",
        ));
    };
    let Some((kind, data)) = data.split_once(',') else {
        return Err(wrong("a data: address has a comma before its data"));
    };
    if !kind.to_ascii_lowercase().ends_with(";base64") {
        return Err(wrong("a picture's data: address says ;base64 before its comma"));
    }
    // Line breaks come from tools that fold.
    let data: Vec<u8> = data.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    BASE64.decode(data).map_err(|e| wrong(&format!("the data are no base64: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_lie_in_their_addresses() {
        for data in ["iVBORw==", "iVBORw", "iVBO\r\nRw=="] {
            let url = format!("data:image/png;base64,{data}");
            assert_eq!(picture(&url).unwrap(), b"\x89PNG");
        }
        assert_eq!(picture("data:;base64,").unwrap(), b"");
        for url in [
            "https://example.org/cat.png",
            "file:///etc/passwd",
            "data:image/png;base64",
            "data:image/png,iVBORw==",
            "data:image/png;base64,iVB!Rw==",
            "",
        ] {
            let e = picture(url).unwrap_err().json();
            assert_eq!(e["error"]["param"], "messages", "{url}");
        }
    }
}
