use super::SPREAD_KEY;

/// The Toeplitz hash as network cards compute it: for each set bit of the input, 32 bits of the key from that place on.
fn hash(input: &[u8]) -> u32 {
    let window = |bit: usize| {
        let word = SPREAD_KEY[bit / 8..bit / 8 + 5].iter().fold(0_u64, |word, byte| word << 8 | u64::from(*byte));
        (word >> (8 - bit % 8)) as u32
    };
    let bits = (0..input.len() * 8).filter(|bit| input[bit / 8] >> (7 - bit % 8) & 1 == 1);
    bits.fold(0, |hash, bit| hash ^ window(bit))
}

fn tuple(client: u32, client_port: u16, vipa: u32, vipa_port: u16) -> ([u8; 12], [u8; 12]) {
    let (client, vipa) = (client.to_be_bytes(), vipa.to_be_bytes());
    let (from, to) = (client_port.to_be_bytes(), vipa_port.to_be_bytes());
    let pack = |parts: [&[u8]; 4]| parts.concat().try_into().unwrap();
    (pack([&client, &vipa, &from, &to]), pack([&vipa, &client, &to, &from]))
}

#[test]
fn both_directions_of_a_connection_have_one_queue_and_connections_spread_over_all() {
    let mut queues = [0; 4];
    for n in 0..4_096_u32 {
        let (there, back) = tuple(0xcb00_7100 | n >> 4, 32_768 + n as u16 * 7, 0xc000_020a, 443);
        assert_eq!(hash(&there), hash(&back));
        queues[hash(&there) as usize % 4] += 1;
    }
    assert!(queues.iter().all(|count| (800..1_300).contains(count)), "{queues:?}");
}
