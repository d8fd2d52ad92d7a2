//! Where things lie in a `.snap` file.
