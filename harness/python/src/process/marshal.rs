//! Python's `marshal` format, version 2, as far as plain values need it: what CPython reads and writes in C, alike from
//! 3.9 on.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;

use relapse_core::asgi::value::{SurrogateText, Value};

/// How deeply values may be nested.
const DEPTH_MAX: usize = 200;

/// Appends a value.
pub(super) fn write(value: &Value, output: &mut Vec<u8>) {
    match value {
        Value::None => output.push(b'N'),
        Value::Bool(value) => output.push(if *value { b'T' } else { b'F' }),
        Value::Int(value) => write_int(*value, output),
        Value::Float(value) => {
            output.push(b'g');
            output.extend_from_slice(&value.to_le_bytes());
        }
        Value::Str(text) => write_sized(b'u', text.as_bytes(), output),
        Value::Surrogates(text) => write_sized(b'u', text.as_bytes(), output),
        Value::Bytes(bytes) => write_sized(b's', bytes, output),
        Value::List(items) => {
            write_size(b'[', items.len(), output);
            items.iter().for_each(|item| write(item, output));
        }
        Value::Dict(entries) => {
            output.push(b'{');
            for (key, value) in entries {
                write_sized(b'u', key.as_bytes(), output);
                write(value, output);
            }
            output.push(b'0');
        }
    }
}

fn write_size(kind: u8, size: usize, output: &mut Vec<u8>) {
    output.push(kind);
    // A message of 2 GiB is none.
    output.extend_from_slice(&i32::try_from(size).unwrap_or(i32::MAX).to_le_bytes());
}

fn write_sized(kind: u8, bytes: &[u8], output: &mut Vec<u8>) {
    write_size(kind, bytes.len(), output);
    output.extend_from_slice(bytes);
}

/// An int: 32 bits as they are, a longer one in digits of 15 bits, their number negative with the int.
fn write_int(value: i64, output: &mut Vec<u8>) {
    if let Ok(value) = i32::try_from(value) {
        output.push(b'i');
        output.extend_from_slice(&value.to_le_bytes());
        return;
    }
    let mut rest = value.unsigned_abs();
    let mut digits = Vec::new();
    while rest > 0 {
        digits.push((rest & 0x7FFF) as u16);
        rest >>= 15;
    }
    let count = digits.len() as i32;
    output.push(b'l');
    output.extend_from_slice(&(if value < 0 { -count } else { count }).to_le_bytes());
    digits.iter().for_each(|digit| output.extend_from_slice(&digit.to_le_bytes()));
}

/// Reads the value that all the input is.
///
/// Tuples are read as lists, keys that are no text by their text, and ints beyond 64 bits as the nearest one.
///
/// # Errors
/// When it is none.
pub(super) fn read(mut input: &[u8]) -> Result<Value, String> {
    let value = read_value(&mut input, 0)?;
    if input.is_empty() { Ok(value) } else { Err(format!("{} byte(s) too many", input.len())) }
}

fn read_value(input: &mut &[u8], depth: usize) -> Result<Value, String> {
    if depth > DEPTH_MAX {
        return Err(format!("more than {DEPTH_MAX} values in one another"));
    }
    Ok(match take::<1>(input)?[0] {
        b'N' => Value::None,
        b'T' => Value::Bool(true),
        b'F' => Value::Bool(false),
        b'i' => Value::Int(i32::from_le_bytes(take(input)?).into()),
        b'l' => Value::Int(read_long(input)?),
        b'g' => Value::Float(f64::from_le_bytes(take(input)?)),
        b'u' => read_text(read_sized(input)?),
        b's' => Value::Bytes(Bytes::copy_from_slice(read_sized(input)?)),
        b'[' | b'(' => {
            let count = read_count(input)?;
            let mut items = Vec::with_capacity(count.min(input.len()));
            for _ in 0..count {
                items.push(read_value(input, depth + 1)?);
            }
            Value::List(items)
        }
        b'{' => {
            let mut entries = BTreeMap::new();
            while input.first() != Some(&b'0') {
                let key = match read_value(input, depth + 1)? {
                    Value::Str(key) => key,
                    Value::Surrogates(key) => key.escaped(),
                    other => serde_json::to_string(&other).unwrap_or_default(),
                };
                entries.insert(Cow::Owned(key), read_value(input, depth + 1)?);
            }
            take::<1>(input)?;
            Value::Dict(entries)
        }
        other => return Err(format!("a value of the unknown kind {:?}", char::from(other))),
    })
}

/// Reads a text; Python's may have halves of surrogate pairs.
fn read_text(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::from(text),
        Err(_) => Value::Surrogates(SurrogateText::from_bytes(bytes)),
    }
}

fn take<const N: usize>(input: &mut &[u8]) -> Result<[u8; N], String> {
    let (taken, rest) = input.split_first_chunk().ok_or("it ends in the middle of a value")?;
    *input = rest;
    Ok(*taken)
}

fn read_count(input: &mut &[u8]) -> Result<usize, String> {
    usize::try_from(i32::from_le_bytes(take(input)?)).map_err(|_| "a negative size".to_owned())
}

fn read_sized<'a>(input: &mut &'a [u8]) -> Result<&'a [u8], String> {
    let count = read_count(input)?;
    let (taken, rest) = input.split_at_checked(count).ok_or("it ends in the middle of a value")?;
    *input = rest;
    Ok(taken)
}

fn read_long(input: &mut &[u8]) -> Result<i64, String> {
    let count = i32::from_le_bytes(take(input)?);
    let mut value: i128 = 0;
    for index in 0..count.unsigned_abs() {
        let digit = i128::from(u16::from_le_bytes(take(input)?));
        if index < 8 {
            value |= digit << (15 * index);
        } else {
            value = i128::MAX;
        }
    }
    let value = value.min(i128::from(i64::MAX) + 1) * if count < 0 { -1 } else { 1 };
    Ok(i64::try_from(value).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{read, write};
    use relapse_core::asgi::value::Value;

    /// Each with what `marshal.dumps(value, 2)` of CPython 3.12 gives.
    #[rstest]
    #[case(r"null", "4e")]
    #[case(r"true", "54")]
    #[case(r"-2", "69feffffff")]
    #[case(r"2147483648", "6c03000000000000000200")]
    #[case(r"-9223372036854775808", "6cfbffffff00000000000000000800")]
    #[case(r"1.5", "67000000000000f83f")]
    #[case(r#""é""#, "7502000000c3a9")]
    #[case(r#"{"$surrogates":"\\xed\\xa0\\x80"}"#, "7503000000eda080")]
    #[case(r#"{"$bytes":"\\xff"}"#, "7301000000ff")]
    #[case(r#"[1,[]]"#, "5b0200000069010000005b00000000")]
    #[case(r#"{"a":null}"#, "7b7501000000614e30")]
    fn values_are_as_python_writes_them(#[case] json: &str, #[case] hex: &str) {
        let value: Value = serde_json::from_str(json).unwrap();
        let mut written = Vec::new();
        write(&value, &mut written);
        let shown: String = written.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(shown, hex);
        assert_eq!(read(&written).unwrap(), value);
    }

    #[rstest]
    #[case::nothing(b"")]
    #[case::half_an_int(b"i\0")]
    #[case::a_negative_size(b"s\xff\xff\xff\xff")]
    #[case::more_than_there_is(b"[\xff\xff\xff\x7f")]
    #[case::unknown(b"?")]
    #[case::too_much(b"NN")]
    fn what_is_no_value_is_refused(#[case] bytes: &[u8]) {
        assert!(read(bytes).is_err());
    }

    #[test]
    fn nothing_is_nested_without_end() {
        let deep = b"[\x01\0\0\0".repeat(100_000);
        assert!(read(&deep).unwrap_err().contains("in one another"));
    }
}
