//! Who is at the other end of an admin socket, and what they may do there.
//!
//! The kernel says the peer's uid and primary group when it connects (`SO_PEERCRED`, unix(7)); the host's user database says their
//! name and further groups. The database may be far away (LDAP), so that [`identify`] blocks: it is called on a thread for that.

use std::{ffi::CString, fs, io, os::unix::fs::PermissionsExt, path::Path};

use nix::unistd::{Gid, Group, Uid, User, chown, getgrouplist};
use vipa_model::{config::AdminAccess, printable};
use vipa_protocol::{Operator, text::MAX_NAME};

/// What a client of the admin socket may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AdminRole {
    /// Ask.
    Read,
    /// Ask and order.
    Operate,
}

/// Who may do what, with the groups of the configuration as this host knows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessRules {
    me: u32,
    group: Option<u32>,
    read_group: Option<u32>,
}

/// Somebody who has connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminPeer {
    pub operator: Operator,
    /// The primary one among them.
    pub groups: Vec<u32>,
}

impl AccessRules {
    /// An error names the group that this host does not know.
    pub fn new(access: &AdminAccess) -> io::Result<Self> {
        let AdminAccess { group, read_group } = access;
        let gid = |name: &Option<String>, key: &str| match name {
            None => Ok(None),
            Some(name) => match Group::from_name(name)? {
                Some(group) => Ok(Some(group.gid.as_raw())),
                None => Err(io::Error::new(
                    io::ErrorKind::NotFound,
                    format!("this host has no group {name:?} ({key}); add it with groupadd, or name another"),
                )),
            },
        };
        Ok(Self {
            me: Uid::effective().as_raw(),
            group: gid(group, "admin.group")?,
            read_group: gid(read_group, "admin.read_group")?,
        })
    }

    /// Gives the socket's file its group and mode. Who may open it without being in a group is refused by [`role`](Self::role).
    pub fn protect(&self, socket: &Path) -> io::Result<()> {
        if let Some(group) = self.group {
            chown(socket, None, Some(Gid::from_raw(group)))?;
        }
        let mode = if self.read_group.is_some() { 0o666 } else { 0o660 };
        fs::set_permissions(socket, fs::Permissions::from_mode(mode))
    }

    /// `None`: nothing at all.
    #[must_use]
    pub fn role(&self, peer: &AdminPeer) -> Option<AdminRole> {
        let Self { me, group, read_group } = self;
        let is_in = |group: &Option<u32>| group.is_some_and(|group| peer.groups.contains(&group));
        let uid = peer.operator.uid;
        if uid == 0 || uid == *me || is_in(group) {
            Some(AdminRole::Operate)
        } else if is_in(read_group) {
            Some(AdminRole::Read)
        } else if group.is_none() && read_group.is_none() {
            // The permissions of the file have judged.
            Some(AdminRole::Operate)
        } else {
            None
        }
    }
}

/// Name and groups of a user. Blocks on the user database. A user that it does not have has no name, and no group but this one.
#[must_use]
pub fn identify(uid: u32, gid: u32) -> AdminPeer {
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    let name = user.map(|user| user.name);
    let listed = name.as_deref().and_then(|name| CString::new(name).ok());
    let listed = listed.and_then(|name| getgrouplist(&name, Gid::from_raw(gid)).ok()).unwrap_or_default();
    let mut groups: Vec<u32> = listed.into_iter().map(Gid::as_raw).collect();
    if !groups.contains(&gid) {
        groups.push(gid);
    }
    AdminPeer { operator: Operator { uid, name: name.map(|name| printable(&name, MAX_NAME)) }, groups }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(uid: u32, groups: &[u32]) -> AdminPeer {
        AdminPeer { operator: Operator { uid, name: None }, groups: groups.to_vec() }
    }

    #[test]
    fn groups_decide_who_asks_and_who_orders() {
        let rules = AccessRules { me: 500, group: Some(70), read_group: Some(80) };
        let roles = [
            (peer(0, &[0]), Some(AdminRole::Operate)),
            (peer(500, &[500]), Some(AdminRole::Operate)),
            (peer(1000, &[1000, 70]), Some(AdminRole::Operate)),
            (peer(1000, &[1000, 80]), Some(AdminRole::Read)),
            (peer(1000, &[80, 70]), Some(AdminRole::Operate)),
            (peer(1000, &[1000]), None),
        ];
        for (peer, role) in roles {
            assert_eq!(rules.role(&peer), role, "{peer:?}");
        }
        let none = AccessRules { me: 500, group: None, read_group: None };
        assert_eq!(none.role(&peer(1000, &[1000])), Some(AdminRole::Operate), "the file's permissions have judged");
        let only = AccessRules { group: Some(70), ..none };
        assert_eq!(only.role(&peer(1000, &[1000])), None);
    }

    #[test]
    fn root_has_a_name_and_a_user_that_does_not_exist_has_none() {
        let root = identify(0, 0);
        assert_eq!((root.operator.to_string(), root.groups.contains(&0)), ("root (uid 0)".into(), true));
        let nobody = identify(3_999_999_999, 77);
        assert_eq!((nobody.operator.to_string(), nobody.groups), ("uid 3999999999".into(), vec![77]));
    }

    #[test]
    fn a_group_that_this_host_does_not_have_is_refused_by_name() {
        let access = AdminAccess { group: Some("no-such-group-here".into()), read_group: None };
        let error = AccessRules::new(&access).unwrap_err().to_string();
        assert!(error.contains("no-such-group-here") && error.contains("admin.group"), "{error}");
        let known = AdminAccess { group: Some("root".into()), read_group: None };
        assert_eq!(AccessRules::new(&known).unwrap().group, Some(0));
    }

    #[test]
    fn the_file_of_the_socket_gets_the_mode_of_its_rules() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        fs::write(&path, "").unwrap();
        for (read_group, mode) in [(None, 0o660), (Some(0), 0o666)] {
            AccessRules { me: 0, group: None, read_group }.protect(&path).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode);
        }
    }
}
