//! D-Bus messages as bytes (D-Bus Specification, "Message Protocol"): what the calls of this driver need of it.
//!
//! All that is written is little endian; answers may be of either order. Whatever comes from the bus is bounded and
//! checked: a length that does not fit is an error and never a panic.

use super::super::scope::Value;

/// The specification's bound on messages is 128 MiB; nothing that we ask for comes near this.
const MOST: usize = 4 << 20;

/// Kinds of messages.
pub const METHOD_CALL: u8 = 1;
pub const METHOD_RETURN: u8 = 2;
pub const ERROR: u8 = 3;
pub const SIGNAL: u8 = 4;

/// A flag: no answer is wanted.
pub const NO_REPLY: u8 = 1;

/// What a method call names.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    pub destination: &'a str,
    pub path: &'a str,
    pub interface: &'a str,
    pub member: &'a str,
    pub signature: &'a str,
    pub flags: u8,
}

impl Call<'_> {
    /// The whole message.
    #[must_use]
    pub fn render(&self, serial: u32, body: &[u8]) -> Vec<u8> {
        let mut message = Writer::default();
        message.bytes.extend_from_slice(&[b'l', METHOD_CALL, self.flags, 1]);
        message.u32(u32::try_from(body.len()).unwrap_or(u32::MAX));
        message.u32(serial);
        message.array(8, |fields| {
            for (code, kind, text) in [
                (1, 'o', self.path),
                (2, 's', self.interface),
                (3, 's', self.member),
                // systemd's own socket knows no destinations.
                (6, 's', self.destination),
                (8, 'g', self.signature),
            ] {
                if !text.is_empty() {
                    fields.align(8);
                    fields.bytes.push(code);
                    fields.signature(kind.encode_utf8(&mut [0; 4]));
                    if kind == 'g' { fields.signature(text) } else { fields.text(text) }
                }
            }
        });
        message.align(8);
        message.bytes.extend_from_slice(body);
        message.bytes
    }
}

/// A body or a header while it is written. Alignment counts from its start, which is aligned to 8.
#[derive(Debug, Default)]
pub struct Writer {
    pub bytes: Vec<u8>,
}

impl Writer {
    pub fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    pub fn u32(&mut self, value: u32) {
        self.align(4);
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    pub fn u64(&mut self, value: u64) {
        self.align(8);
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    pub fn text(&mut self, text: &str) {
        self.u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.push(0);
    }

    pub fn signature(&mut self, text: &str) {
        self.bytes.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.push(0);
    }

    /// An array whose elements are aligned to `alignment`; the padding before the first is not counted.
    pub fn array(&mut self, alignment: usize, fill: impl FnOnce(&mut Self)) {
        self.u32(0);
        let length_at = self.bytes.len() - 4;
        self.align(alignment);
        let start = self.bytes.len();
        fill(self);
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        self.bytes[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
    }

    /// `a(sv)`
    pub fn properties(&mut self, properties: &[(String, Value)]) {
        self.array(8, |array| {
            for (name, value) in properties {
                array.align(8);
                array.text(name);
                array.variant(value);
            }
        });
    }

    fn variant(&mut self, value: &Value) {
        self.signature(signature_of(value));
        match value {
            Value::Text(text) => self.text(text),
            Value::Bool(value) => self.u32(u32::from(*value)),
            Value::U64(value) => self.u64(*value),
            Value::U32(value) => self.u32(*value),
            Value::I32(value) => self.u32(u32::from_ne_bytes(value.to_ne_bytes())),
            Value::I64(value) => self.u64(u64::from_ne_bytes(value.to_ne_bytes())),
            Value::Texts(list) => self.array(4, |array| list.iter().for_each(|text| array.text(text))),
            Value::Numbers(list) => self.array(4, |array| list.iter().for_each(|number| array.u32(*number))),
            Value::Bytes(bytes) => self.array(1, |array| array.bytes.extend_from_slice(bytes)),
            Value::Pairs(list) => self.array(8, |array| {
                for (first, second) in list {
                    array.align(8);
                    array.text(first);
                    array.text(second);
                }
            }),
        }
    }
}

const fn signature_of(value: &Value) -> &'static str {
    match value {
        Value::Text(_) => "s",
        Value::Bool(_) => "b",
        Value::U64(_) => "t",
        Value::U32(_) => "u",
        Value::I32(_) => "i",
        Value::I64(_) => "x",
        Value::Texts(_) => "as",
        Value::Numbers(_) => "au",
        Value::Bytes(_) => "ay",
        Value::Pairs(_) => "a(ss)",
    }
}

/// A message that came.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Received {
    pub kind: u8,
    pub reply_to: u32,
    pub interface: String,
    pub member: String,
    pub error: String,
    pub signature: String,
    pub body: Vec<u8>,
    pub big_endian: bool,
}

impl Received {
    /// How long the message is that begins with `bytes`, once its first 16 are there.
    ///
    /// # Errors
    /// What cannot be a message.
    pub fn length(bytes: &[u8]) -> Result<Option<usize>, &'static str> {
        let Some(start) = bytes.first_chunk::<16>() else { return Ok(None) };
        let big_endian = order(start[0])?;
        let mut reader = Reader { bytes: start, at: 4, big_endian };
        let body = reader.u32()? as usize;
        reader.u32()?;
        let fields = reader.u32()? as usize;
        if body > MOST || fields > MOST {
            return Err("a message that is too long");
        }
        Ok(Some((16 + fields).next_multiple_of(8) + body))
    }

    /// Reads a whole message.
    ///
    /// # Errors
    /// What is none.
    pub fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        let length = Self::length(bytes)?.filter(|length| *length == bytes.len()).ok_or("a torn message")?;
        let big_endian = order(bytes[0])?;
        let mut reader = Reader { bytes, at: 4, big_endian };
        let body = reader.u32()? as usize;
        reader.u32()?;
        let end = 16 + reader.u32()? as usize;
        let mut message = Self { kind: bytes[1], big_endian, ..Self::default() };
        while reader.at < end {
            reader.align(8)?;
            let code = reader.byte()?;
            let signature = reader.signature()?;
            match (code, signature.as_str()) {
                (5, "u") => message.reply_to = reader.u32()?,
                (2, "s") => message.interface = reader.text()?,
                (3, "s") => message.member = reader.text()?,
                (4, "s") => message.error = reader.text()?,
                (8, "g") => message.signature = reader.signature()?,
                (_, "s" | "o") => drop(reader.text()?),
                (_, "g") => drop(reader.signature()?),
                (_, "u") => drop(reader.u32()?),
                _ => return Err("a header field of an unknown type"),
            }
        }
        message.body = bytes[length - body..].to_vec();
        Ok(message)
    }

    /// Reads the body.
    #[must_use]
    pub fn reader(&self) -> Reader<'_> {
        Reader { bytes: &self.body, at: 0, big_endian: self.big_endian }
    }
}

fn order(mark: u8) -> Result<bool, &'static str> {
    match mark {
        b'l' => Ok(false),
        b'B' => Ok(true),
        _ => Err("a message of no byte order"),
    }
}

/// Walks received bytes.
#[derive(Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    big_endian: bool,
}

impl Reader<'_> {
    fn take(&mut self, count: usize) -> Result<&[u8], &'static str> {
        let end = self.at.checked_add(count).ok_or("a length that overflows")?;
        let taken = self.bytes.get(self.at..end).ok_or("a message that ends early")?;
        self.at = end;
        Ok(taken)
    }

    fn align(&mut self, to: usize) -> Result<(), &'static str> {
        let count = self.at.next_multiple_of(to) - self.at;
        self.take(count).map(drop)
    }

    fn byte(&mut self) -> Result<u8, &'static str> {
        Ok(self.take(1)?[0])
    }

    /// # Errors
    /// The end of the bytes.
    pub fn u32(&mut self) -> Result<u32, &'static str> {
        self.align(4)?;
        let big_endian = self.big_endian;
        let bytes = self.take(4)?.first_chunk::<4>().copied().unwrap_or_default();
        Ok(if big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    /// A string or an object path.
    ///
    /// # Errors
    /// The end of the bytes, text that is not UTF-8.
    pub fn text(&mut self) -> Result<String, &'static str> {
        let length = self.u32()? as usize;
        self.string(length)
    }

    /// # Errors
    /// The end of the bytes.
    pub fn signature(&mut self) -> Result<String, &'static str> {
        let length = usize::from(self.byte()?);
        self.string(length)
    }

    fn string(&mut self, length: usize) -> Result<String, &'static str> {
        let text = std::str::from_utf8(self.take(length)?).map_err(|_| "text that is not UTF-8")?.to_owned();
        self.take(1)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(signature: &str) -> Call<'_> {
        Call { destination: "a.b", path: "/o", interface: "i.f", member: "M", signature, flags: 0 }
    }

    #[test]
    fn a_call_is_laid_out_as_the_specification_says() {
        let mut body = Writer::default();
        body.text("x");
        let bytes = call("s").render(7, &body.bytes);
        assert_eq!(&bytes[..8], [b'l', 1, 0, 1, 6, 0, 0, 0]);
        assert_eq!(Received::length(&bytes), Ok(Some(bytes.len())));
        let back = Received::parse(&bytes).unwrap();
        assert_eq!((back.member.as_str(), back.signature.as_str()), ("M", "s"));
        assert_eq!(back.reader().text(), Ok("x".to_owned()));
    }

    #[test]
    fn properties_are_aligned_and_measured() {
        let mut writer = Writer::default();
        writer.properties(&[
            ("A".to_owned(), Value::Bool(true)),
            ("PIDs".to_owned(), Value::Numbers(vec![5])),
            ("D".to_owned(), Value::Pairs(vec![("a".to_owned(), "rw".to_owned())])),
        ]);
        let bytes = writer.bytes;
        assert_eq!(bytes.len(), 4 + 4 + u32::from_le_bytes(*bytes.first_chunk().unwrap()) as usize);
        // The second structure begins on a multiple of 8: "A", its variant b, then padding.
        assert_eq!(&bytes[8..24], [1, 0, 0, 0, b'A', 0, 1, b'b', 0, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(&bytes[24..33], [4, 0, 0, 0, b'P', b'I', b'D', b's', 0]);
    }

    #[test]
    fn nothing_that_comes_panics() {
        let bytes = call("").render(1, &[]);
        for length in 0..bytes.len() {
            assert!(Received::parse(&bytes[..length]).is_err());
        }
        for at in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut broken = bytes.clone();
                broken[at] = value;
                let _ = Received::length(&broken).map(|_| Received::parse(&broken));
            }
        }
    }
}
