//! Lets the compiled schema say how its lists and objects merge.
use super::strategic::{MergeField, MergeSchema, strategic_merge_with};
use super::PatchError;
use crate::schema::Schema;
use crate::tree::Tree;

impl MergeSchema for Schema {
    fn field(&self, name: &str) -> Option<MergeField<'_, Self>> {
        let schema = self.get(name)?;
        let strategy = schema.patch_strategy();
        let strategy = match (strategy.merge, strategy.replace) {
            (true, _) => "merge",
            (_, true) => "replace",
            _ => "",
        };
        Some(MergeField { schema, strategy, merge_key: schema.patch_merge_key().unwrap_or("") })
    }

    fn items(&self) -> Option<&Self> {
        Schema::items(self)
    }
}

/// Merges `patch` into `original`, an object of the kind that `schema` describes.
pub fn strategic_merge(original: &mut Tree, patch: Tree, schema: &Schema) -> Result<(), PatchError> {
    strategic_merge_with(original, patch, schema)
}
