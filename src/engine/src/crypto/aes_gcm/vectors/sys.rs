//! How instructions become safe functions.

/// Defines a type of [`Vectors`](super::Vectors): its name, how it is found that the processor has these features, and its functions, which are
/// compiled for such processors.
macro_rules! vectors {
    (
        $(#[$doc:meta])*
        pub struct $name:ident;
        features = $features:literal, detect = $detect:expr;
        blocks = $blocks:literal, holds_round_keys = $holds_round_keys:literal, joins = $joins:literal, vector = $vector:ty;
        $(fn $function:ident($($argument:ident: $type:ty),*) $(-> $output:ty)? $body:block)*
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub(in crate::crypto::aes_gcm) struct $name(());

        impl $crate::crypto::aes_gcm::vectors::Vectors for $name {
            const BLOCKS: usize = $blocks;
            const HOLDS_ROUND_KEYS: bool = $holds_round_keys;
            const JOINS: bool = $joins;
            type Vector = $vector;

            fn detect() -> Option<Self> {
                ($detect).then_some($name(()))
            }

            #[inline(always)]
            fn enter<T>(self, task: impl $crate::crypto::aes_gcm::vectors::Task<T>) -> T {
                #[target_feature(enable = $features)]
                fn inside<T>(task: impl $crate::crypto::aes_gcm::vectors::Task<T>) -> T {
                    task.run()
                }
                // SAFETY: there is a value of this type, so `detect` has found that the processor has the features.
                unsafe { inside(task) }
            }

            $(
                #[inline(always)]
                fn $function(self, $($argument: $type),*) $(-> $output)? {
                    #[inline]
                    #[target_feature(enable = $features)]
                    fn inside($($argument: $type),*) $(-> $output)? $body
                    // SAFETY: there is a value of this type, so `detect` has found that the processor has the features.
                    unsafe { inside($($argument),*) }
                }
            )*
        }
    };
}

pub(super) use vectors;
