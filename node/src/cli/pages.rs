//! Lists, page by page, so that memory does not grow with them.

use confman_client::wire::{Entry, NamespaceInfo};
use confman_client::{Client, ClientError, Page, ReadMode};

use super::failure::Failure;

/// Items of a page: what a node gives at most.
pub(crate) const PAGE_ITEMS: u32 = 1000;

/// Where a list stands: the cursor of the page to ask for next; nothing after the last.
#[derive(Debug)]
struct Cursor(Option<Page>);

impl Cursor {
    fn new() -> Self {
        Self::at(None)
    }

    fn at(cursor: Option<String>) -> Self {
        Self(Some(Page {
            limit: Some(PAGE_ITEMS),
            cursor,
        }))
    }

    /// The page to ask for next, of so many items at most.
    fn page(&mut self, most: u64) -> Option<&Page> {
        let page = self.0.as_mut()?;
        page.limit = Some(
            u32::try_from(most)
                .unwrap_or(PAGE_ITEMS)
                .clamp(1, PAGE_ITEMS),
        );
        Some(page)
    }

    /// A cursor that does not move would be an endless list.
    fn advance(&mut self, next: Option<String>) -> Result<(), ClientError> {
        let before = self.0.take().and_then(|page| page.cursor);
        if next.is_some() && next == before {
            let why = "a list whose next page is the same page".to_owned();
            return Err(ClientError::Answer {
                endpoint: "the node".to_owned(),
                why,
            });
        }
        if let Some(cursor) = next {
            *self = Self::at(Some(cursor));
        }
        Ok(())
    }
}

/// The namespaces below one, without itself, or all.
#[derive(Debug)]
pub(crate) struct Namespaces<'a> {
    client: &'a Client,
    root: Option<&'a str>,
    mode: ReadMode,
    cursor: Cursor,
}

impl<'a> Namespaces<'a> {
    pub(crate) fn new(client: &'a Client, root: Option<&'a str>, mode: ReadMode) -> Self {
        Self {
            client,
            root,
            mode,
            cursor: Cursor::new(),
        }
    }

    /// The same list from where an earlier one ended.
    pub(crate) fn from(mut self, cursor: Option<String>) -> Self {
        self.cursor = Cursor::at(cursor);
        self
    }

    /// The cursor of what has not been read yet.
    pub(crate) fn rest(&self) -> Option<&str> {
        self.cursor.0.as_ref()?.cursor.as_deref()
    }

    /// The next page; `None` after the last.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<NamespaceInfo>>, Failure> {
        self.next_of(u64::MAX).await
    }

    /// The next page of so many namespaces at most; `None` after the last.
    pub(crate) async fn next_of(
        &mut self,
        most: u64,
    ) -> Result<Option<Vec<NamespaceInfo>>, Failure> {
        let Some(page) = self.cursor.page(most) else {
            return Ok(None);
        };
        let list = self
            .client
            .list_namespaces(self.root, page, self.mode)
            .await?
            .value;
        self.cursor.advance(list.next_cursor)?;
        let below = self.root.map(|root| format!("{root}/"));
        let wanted = |info: &NamespaceInfo| {
            below
                .as_deref()
                .is_none_or(|below| info.namespace.starts_with(below))
        };
        Ok(Some(list.items.into_iter().filter(wanted).collect()))
    }
}

/// The keys directly in a namespace.
#[derive(Debug)]
pub(crate) struct Entries<'a> {
    client: &'a Client,
    namespace: &'a str,
    mode: ReadMode,
    cursor: Cursor,
}

impl<'a> Entries<'a> {
    pub(crate) fn new(client: &'a Client, namespace: &'a str, mode: ReadMode) -> Self {
        Self {
            client,
            namespace,
            mode,
            cursor: Cursor::new(),
        }
    }

    /// The same list from where an earlier one ended.
    pub(crate) fn from(mut self, cursor: Option<String>) -> Self {
        self.cursor = Cursor::at(cursor);
        self
    }

    /// The cursor of what has not been read yet.
    pub(crate) fn rest(&self) -> Option<&str> {
        self.cursor.0.as_ref()?.cursor.as_deref()
    }

    /// The next page; `None` after the last.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<Entry>>, Failure> {
        self.next_of(u64::MAX).await
    }

    /// The next page of so many entries at most; `None` after the last.
    pub(crate) async fn next_of(&mut self, most: u64) -> Result<Option<Vec<Entry>>, Failure> {
        let Some(page) = self.cursor.page(most) else {
            return Ok(None);
        };
        let list = self
            .client
            .list(self.namespace, page, false, self.mode)
            .await?
            .value;
        self.cursor.advance(list.next_cursor)?;
        Ok(Some(list.items))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i19_a_list_that_does_not_move_ends() {
        let mut cursor = Cursor::new();
        cursor.advance(Some("a".to_owned())).unwrap();
        cursor.advance(Some("b".to_owned())).unwrap();
        assert!(cursor.advance(Some("b".to_owned())).is_err());
        let mut cursor = Cursor::new();
        cursor.advance(None).unwrap();
        assert!(cursor.0.is_none());
    }
}
