//! Lists of processors in configurations, as Linux writes them: `0-3,8`.

use ringway_datapath::thread::parse_cpulist;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

#[derive(Deserialize)]
#[serde(untagged)]
enum List {
    Numbers(Vec<usize>),
    Number(usize),
    Text(String),
}

pub(super) fn serialize<S: Serializer>(
    processors: &Option<Vec<usize>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    processors.serialize(serializer)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<usize>>, D::Error> {
    let invalid =
        |text: &str| de::Error::custom(format!("{text:?} is not a list of processors such as 0-3,8"));
    Ok(match Option::<List>::deserialize(deserializer)? {
        None => None,
        Some(List::Numbers(numbers)) => Some(numbers),
        Some(List::Number(number)) => Some(vec![number]),
        Some(List::Text(text)) => Some(parse_cpulist(&text).ok_or_else(|| invalid(&text))?),
    })
}
