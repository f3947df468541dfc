package main

import (
	"path/filepath"
	"strings"

	"chandler/services/credentials/vault"
)

// examineKeyEncryption judges how the keyset of accounts is kept that a server on this machine has.
func examineKeyEncryption(at place) []finding {
	const about = "accounts' keyset"
	name, inClear, err := vault.Look(at.keys())
	switch {
	case err != nil:
		return []finding{problem(about, "restore it from a copy, or look as the user who owns it", "%v", err)}
	case inClear:
		return []finding{warning(about, "restart the server, which encrypts it", "%s holds one in the clear, as an earlier version wrote it", at.keys())}
	case name == "":
		return nil
	}
	key, inFile := strings.CutPrefix(name, "file:")
	if !inFile {
		return []finding{ok(about, "it is encrypted by %s", name)}
	}
	if !present(key) {
		return []finding{problem(about, "put the key back from its copy before the server starts again", "%s, which encrypts it, is not there", key)}
	}
	if open := examineModes(key); len(open) > 0 {
		return open
	}
	if keptTogether(at.data, name) {
		return []finding{warning(about, "move the key and start with --key-encryption file:NEW-PLACE, or leave it out of every copy of "+at.data,
			"the key that encrypts it, %s, is in the same directory: one copy of %s holds both", key, at.data)}
	}
	return []finding{ok(about, "it is encrypted by %s: keep copies of both, in different places", name)}
}

// keptTogether says whether a key-encryption key is a file in the data directory, links followed.
func keptTogether(data, name string) bool {
	key, ok := strings.CutPrefix(name, "file:")
	if !ok {
		return false
	}
	inside, err := filepath.Rel(followed(data), followed(key))
	return err == nil && filepath.IsLocal(inside)
}

// followed is the path without links, or as it is where that cannot be found out.
func followed(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	return path
}
