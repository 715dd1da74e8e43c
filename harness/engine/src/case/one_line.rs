//! A fault in one line, as a command line has it: the kind, then its settings, `strip_header header=Authorization nth=2`.

use super::{Known, reader};
use relapse_core::{error::Error, fault::Fault};

/// Writes the line as the text of a case file, and reads that.
pub(super) fn read(line: &str, known: &Known<'_>) -> Result<Fault, Error> {
    let faults = reader::read_faults("--fault", &to_toml(line, Quoting::OfTexts), known).or_else(|error| {
        // A text may look like a number.
        reader::read_faults("--fault", &to_toml(line, Quoting::OfAll), known).map_err(|_| error)
    });
    faults.map(|mut faults| faults.remove(0))
}

/// The values that are put into quotes.
#[derive(Clone, Copy, PartialEq)]
enum Quoting {
    /// Those that are no TOML value as they stand.
    OfTexts,
    /// All.
    OfAll,
}

/// The line as TOML.
fn to_toml(line: &str, quoting: Quoting) -> String {
    let mut words = words(line).into_iter();
    let mut text = format!("[[fault]]\nkind = {}\n", quoted(&words.next().unwrap_or_default()));
    for word in words {
        let (key, value) = word.split_once('=').unwrap_or((&word, ""));
        let is_value = quoting == Quoting::OfTexts && format!("value = {value}").parse::<toml::Table>().is_ok();
        let value = if is_value { value.to_owned() } else { quoted(value) };
        text.push_str(&format!("{} = {value}\n", quoted(key)));
    }
    text
}

/// The line's words; blanks between double quotes separate none.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut is_quoted) = (Vec::new(), String::new(), false);
    for character in line.chars() {
        is_quoted ^= character == '"';
        if character.is_whitespace() && !is_quoted {
            words.push(std::mem::take(&mut word));
        } else {
            word.push(character);
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::read;
    use crate::case::Known;
    use relapse_core::error::Error;

    #[rstest]
    #[case("strip_header header=Authorization", "edge: strip Authorization")]
    #[case("set_header header=Host value=\"a b\"", "edge: set Host to \"a b\"")]
    #[case("  cut after_bytes=300   direction=to-client ", "edge: end the connection after 300 byte(s), to the client")]
    #[case("lifetime after_ms=30000 from_ms=2000", "edge: end the connection 30000 ms after it began, from 2 s on")]
    #[case("set_header header=X value=8", "edge: set X to \"8\"")]
    fn a_line_is_a_fault(#[case] line: &str, #[case] shown: &str) {
        match read(line, &Known::NOTHING) {
            Ok(fault) => assert_eq!(fault.to_string(), shown),
            Err(error) => panic!("{error:?}"),
        }
    }

    #[rstest]
    #[case("strip_heder header=X", "unknown fault `strip_heder`")]
    #[case("cut after_byte=3", "`cut` needs `after_bytes`")]
    #[case("cut after_bytes=many", "`after_bytes` must be")]
    #[case("", "unknown fault ``")]
    #[case("restart", "`restart` acts at the process")]
    #[case("cut after_bytes=3 step=1", "`step` needs a script")]
    fn what_is_none_is_refused(#[case] line: &str, #[case] message: &str) {
        match read(line, &Known::NOTHING) {
            Err(Error::File(located)) => assert!(located.message.contains(message), "{}", located.message),
            other => panic!("{other:?}"),
        }
    }
}
