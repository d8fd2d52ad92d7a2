//! Generates the peer protocol from `proto/peer.proto` with protox: no protoc needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto/peer.proto");
    let descriptors = protox::compile(["proto/peer.proto"], ["proto"])?;
    tonic_prost_build::configure()
        .bytes(".confman.peer.v1.RaftMessage.body")
        .bytes(".confman.peer.v1.SnapshotMessage.piece")
        .compile_fds(descriptors)?;
    Ok(())
}
