//! Images as a model reads them: rows of features in the place of tokens.

mod rows;

pub use rows::ImageRows;
