//! tokenizer.model: the pieces, scores and types of a SentencePiece `ModelProto`.
//!
//! Three fields of one message are all that is needed, so this reads protobuf's wire format
//! itself: tag, then a varint, eight bytes, a length and that many bytes, or four bytes.

use super::{Piece, TokenType};

/// Field 1 of `ModelProto`: a piece. The others (trainer, normalizer, self-test) are passed over.
const PIECES: u64 = 1;
/// Fields of a piece.
const PIECE_TEXT: u64 = 1;
const PIECE_SCORE: u64 = 2;
const PIECE_TYPE: u64 = 3;

/// One field of a message.
enum Field<'a> {
    Varint(u64),
    Fixed64,
    Bytes(&'a [u8]),
    Fixed32([u8; 4]),
}

/// A message's bytes, consumed field by field.
struct Message<'a>(&'a [u8]);

impl<'a> Message<'a> {
    fn varint(&mut self) -> Result<u64, String> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first().ok_or("it ends inside a number")?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("a number in it is longer than 64 bits".into())
    }

    fn take(&mut self, n: u64) -> Result<&'a [u8], String> {
        let n = usize::try_from(n).ok().filter(|&n| n <= self.0.len());
        let n = n.ok_or("it ends inside a field")?;
        let (taken, rest) = self.0.split_at(n);
        self.0 = rest;
        Ok(taken)
    }

    /// The next field's number and value; `None` at the end.
    fn field(&mut self) -> Result<Option<(u64, Field<'a>)>, String> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Field::Varint(self.varint()?),
            1 => {
                self.take(8)?;
                Field::Fixed64
            }
            2 => {
                let len = self.varint()?;
                Field::Bytes(self.take(len)?)
            }
            5 => Field::Fixed32(self.take(4)?.try_into().expect("take returns 4 bytes")),
            wire => return Err(format!("it uses protobuf's wire type {wire}")),
        };
        Ok(Some((tag >> 3, value)))
    }
}

/// Reads the pieces of a tokenizer.model, in id order.
///
/// # Errors
/// What is wrong with the file, as the end of a sentence about it.
pub(super) fn read(bytes: &[u8]) -> Result<Vec<Piece>, String> {
    let mut message = Message(bytes);
    let mut pieces = Vec::new();
    while let Some((number, value)) = message.field()? {
        if let (PIECES, Field::Bytes(bytes)) = (number, value) {
            let piece = piece(bytes).map_err(|e| format!("piece {}: {e}", pieces.len()))?;
            pieces.push(piece);
            if pieces.len() > super::MAX_TOKENS {
                return Err(format!("it has more than {} pieces", super::MAX_TOKENS));
            }
        }
    }
    if pieces.is_empty() {
        return Err("it holds no pieces; is it a SentencePiece model?".into());
    }
    Ok(pieces)
}

fn piece(bytes: &[u8]) -> Result<Piece, String> {
    let mut message = Message(bytes);
    let mut piece = Piece { text: String::new(), score: 0.0, kind: TokenType::Normal };
    while let Some((number, value)) = message.field()? {
        match (number, value) {
            (PIECE_TEXT, Field::Bytes(text)) => {
                piece.text = std::str::from_utf8(text).map_err(|_| "not valid UTF-8")?.into();
            }
            (PIECE_SCORE, Field::Fixed32(score)) => piece.score = f32::from_le_bytes(score),
            (PIECE_TYPE, Field::Varint(id)) => {
                piece.kind =
                    TokenType::from_id(id).ok_or_else(|| format!("unknown piece type {id}"))?;
            }
            _ => {}
        }
    }
    if !piece.score.is_finite() {
        return Err(format!("its score is {}", piece.score));
    }
    Ok(piece)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(text: &str, score: f32, kind: u8) -> Vec<u8> {
        let mut p = vec![0x0a, text.len() as u8];
        p.extend(text.as_bytes());
        p.push(0x15);
        p.extend(score.to_le_bytes());
        p.extend([0x18, kind]);
        let mut out = vec![0x0a, p.len() as u8];
        out.extend(p);
        out
    }

    #[test]
    fn reads_pieces_and_passes_over_the_rest() {
        let mut bytes = encode("<unk>", 0.0, 2);
        bytes.extend([0x12, 3, 1, 2, 3]); // trainer_spec
        bytes.extend(encode("▁t", -1.5, 1));
        bytes.extend([0x0a, 3, 0x0a, 1, b'x']); // score and type at their defaults
        let pieces = read(&bytes).unwrap();
        assert_eq!(pieces.len(), 3);
        assert_eq!((pieces[0].text.as_str(), pieces[0].kind), ("<unk>", TokenType::Unknown));
        assert_eq!((pieces[1].text.as_str(), pieces[1].score), ("▁t", -1.5));
        assert_eq!((pieces[2].score, pieces[2].kind), (0.0, TokenType::Normal));
    }

    #[test]
    fn refuses_what_is_not_whole() {
        let bytes = encode("▁t", -1.5, 1);
        for n in 1..bytes.len() {
            assert!(read(&bytes[..n]).is_err(), "{n}");
        }
        assert!(read(b"").is_err());
        assert!(read(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01").is_err());
        assert!(read(&[0xff; 32]).is_err());
        assert!(read(&encode("x", f32::NAN, 1)).is_err());
        assert!(read(&encode("x", 0.0, 9)).is_err());
        assert!(read(&[0x0a, 3, 0x0a, 1, 0xff]).is_err());
    }
}
