//! What offers of real browsers come to, and what is refused.
