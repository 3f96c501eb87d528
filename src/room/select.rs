//! Which layer of a publication a receiver gets.

/// What is known of one layer, largest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayerInfo {
    /// Something arrived within the last second.
    pub alive: bool,
    /// Something arrived ever.
    pub known: bool,
    /// Height of its picture in pixels; 0 while no keyframe was seen.
    pub height: u16,
}

/// The smallest layer that fills `height` pixels, or else the largest that is sent. While none is sent, the same among
/// those that ever were, because a still screen sends nothing until it is asked to; `None` where there was none.
///
/// A layer whose height is not yet known is taken for half of the one above it, as browsers scale them.
#[must_use]
pub fn choose(layers: &[LayerInfo], height: u16) -> Option<u8> {
    among(layers, height, |layer| layer.alive).or_else(|| among(layers, height, |layer| layer.known))
}

/// The layer that would suit best if all were sent.
#[must_use]
pub fn ideal(layers: &[LayerInfo], height: u16) -> Option<u8> {
    among(layers, height, |_| true)
}

fn among(layers: &[LayerInfo], height: u16, eligible: fn(&LayerInfo) -> bool) -> Option<u8> {
    let known = layers.iter().enumerate().find(|(_, layer)| layer.height > 0);
    let guess = |index: usize| match known {
        _ if layers[index].height > 0 => u32::from(layers[index].height),
        Some((at, layer)) if at <= index => u32::from(layer.height) >> (index - at),
        Some((at, layer)) => u32::from(layer.height) << (at - index),
        None => 720 >> index,
    };
    let those = || (0..layers.len()).filter(move |&index| eligible(&layers[index]));
    let chosen = those().rev().find(|&index| guess(index) >= u32::from(height)).or_else(|| those().next());
    chosen.map(|index| index as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers(heights: [u16; 3], alive: [bool; 3]) -> [LayerInfo; 3] {
        std::array::from_fn(|n| LayerInfo { alive: alive[n], known: alive[n], height: heights[n] })
    }

    #[test]
    fn the_smallest_that_fills_the_wish() {
        let all = layers([720, 360, 180], [true; 3]);
        assert_eq!(choose(&all, 90), Some(2));
        assert_eq!(choose(&all, 180), Some(2));
        assert_eq!(choose(&all, 181), Some(1));
        assert_eq!(choose(&all, 400), Some(0));
        assert_eq!(choose(&all, 2000), Some(0), "the largest there is");
    }

    #[test]
    fn a_silent_layer_is_replaced_by_what_is_sent() {
        assert_eq!(choose(&layers([720, 360, 180], [false, true, true]), 720), Some(1));
        assert_eq!(choose(&layers([720, 360, 180], [true, false, false]), 90), Some(0));
        assert_eq!(choose(&layers([720, 360, 180], [false; 3]), 720), None);
    }

    #[test]
    fn what_is_not_sent_may_still_be_wished_for() {
        let one = layers([720, 360, 180], [false, true, false]);
        assert_eq!(ideal(&one, 720), Some(0));
        assert_eq!(ideal(&one, 100), Some(2));
        assert_eq!(ideal(&[LayerInfo::default(); 3], 360), Some(1));
        assert_eq!(ideal(&[], 360), None);
    }

    #[test]
    fn a_silent_picture_is_still_chosen_where_there_was_one() {
        let silent = layers([720, 360, 180], [false; 3]).map(|layer| LayerInfo { known: true, ..layer });
        assert_eq!(choose(&silent, 360), Some(1));
        let mut one_speaks = silent;
        one_speaks[2].alive = true;
        assert_eq!(choose(&one_speaks, 720), Some(2));
    }

    #[test]
    fn unknown_heights_are_halves() {
        assert_eq!(choose(&layers([0, 0, 180], [true; 3]), 360), Some(1));
        assert_eq!(choose(&layers([720, 0, 0], [true; 3]), 180), Some(2));
        assert_eq!(choose(&[LayerInfo { alive: true, known: true, height: 0 }], 720), Some(0));
    }
}
