//! Embeds the data files that travel inside the library: a new file in one of these directories, or below it, needs no line
//! of code.

use std::env;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// The name of each list, the directory below `fixtures/`, and the ending of its files.
const LISTS: [(&str, &str, &str); 6] = [
    ("SERVERS", "profiles/servers", "toml"),
    ("BALANCERS", "profiles/balancers", "toml"),
    ("CONFORMANCE", "conformance", "toml"),
    ("REQUIREMENTS", "requirements", "txt"),
    ("CASES", "cases", "toml"),
    ("REPRODUCERS", "capsules", "toml"),
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    let fixtures = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../../fixtures");
    let mut code = String::new();
    for (list, directory, ending) in LISTS {
        println!("cargo::rerun-if-changed=../../fixtures/{directory}");
        writeln!(code, "pub(super) const {list}: &[(&str, &str)] = &[")?;
        let mut names = Vec::new();
        find(&fixtures.join(directory), "", ending, &mut names)?;
        // Numbers in names count by their value, so that 10.4 follows 7.1.
        names.sort_by_cached_key(|name| (parts(name.strip_suffix(&format!(".{ending}"))), name.clone()));
        for name in names {
            // No path of this machine, so that a checkout can be moved with what was built in it.
            let path = format!("/../../fixtures/{directory}/{name}");
            writeln!(code, "    ({name:?}, include_str!(concat!(env!(\"CARGO_MANIFEST_DIR\"), {path:?}))),")?;
        }
        writeln!(code, "];")?;
    }
    fs::write(Path::new(&env::var("OUT_DIR")?).join("embedded.rs"), code)?;
    Ok(())
}

/// Finds the files below a directory with this ending, by their path from there.
fn find(directory: &Path, below: &str, ending: &str, found: &mut Vec<String>) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().ok_or("a file without a name")?.to_str().ok_or("a name that is not UTF-8")?;
        if path.is_dir() {
            find(&path, &format!("{below}{name}/"), ending, found)?;
        } else if path.extension().is_some_and(|extension| extension == ending) {
            found.push(format!("{below}{name}"));
        }
    }
    Ok(())
}

/// A name as text and numbers in turn.
fn parts(name: Option<&str>) -> Vec<(String, u64)> {
    let mut parts: Vec<(String, u64)> = vec![(String::new(), 0)];
    let mut after_number = false;
    for character in name.unwrap_or_default().chars() {
        let digit = character.to_digit(10).map(u64::from);
        if after_number && digit.is_none() {
            parts.push((String::new(), 0));
        }
        after_number = digit.is_some();
        if let Some((text, number)) = parts.last_mut() {
            match digit {
                Some(digit) => *number = number.saturating_mul(10).saturating_add(digit),
                None => text.push(character),
            }
        }
    }
    parts
}
