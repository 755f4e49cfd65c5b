//! (to be written)
pub mod image;
#[derive(Debug, clap::Args)]
pub struct DemoArgs {}
pub async fn run(_: DemoArgs) -> Result<(), super::Failure> {
    Ok(())
}
