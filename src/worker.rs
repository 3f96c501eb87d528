//! THE LOOP of a media thread.
