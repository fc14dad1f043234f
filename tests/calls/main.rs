//! What calls on connections and streams do, and what they answer: in virtual time, where the test is the other thread and its handlers the worker's.

mod addresses;
mod answers;
mod datagrams;
mod dropping;
mod entering;
mod flags;
mod getters;
mod keeping;
mod notifying;
mod panics;
mod receiving;
mod scene;
mod sending;
mod streams;
mod unordered;
mod waiting;
