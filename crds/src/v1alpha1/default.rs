//! Fields that are left out of an object where they have their default.

/// For fields that are left out when they say nothing.
pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
