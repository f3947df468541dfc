package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"chandler/services/backup"
)

// The parts of a data directory beside its identities and accounts, as a backup names them.
const (
	partContent = "content"
	partKeys    = "keys"
	partTLS     = "tls"
	partKey     = "key" // of the directory beside the data directory
)

// dataPart is one directory.
type dataPart struct{ name, dir string }

// dataFiles are the files of a fleet on this machine.
type dataFiles struct {
	at                      place
	identity, administrator string // directories
	public                  bool   // no private keys
}

// complete says where directories are that were not named.
func (f *dataFiles) complete() {
	if f.identity == "" {
		f.identity = f.at.identity()
	}
	if f.administrator == "" {
		f.administrator = f.at.administrator()
	}
}

// parts are the directories, in the order in which they are backed up.
func (f dataFiles) parts() []dataPart {
	return []dataPart{
		{partIdentity, f.identity}, {partAccounts, f.at.accounts()}, {administration, f.administrator}, {partTLS, f.at.tls()},
		{partKeys, f.at.keys()}, {partKey, filepath.Dir(f.at.accountsKey())}, {partContent, filepath.Join(f.at.data, partContent)},
	}
}

// list gives all files that are backed up.
func (f dataFiles) list() (all []backup.File, err error) {
	for _, part := range f.parts() {
		// The directory may be a link, to another disk: a walk follows it if it ends so.
		err := filepath.WalkDir(part.dir+string(filepath.Separator), func(path string, entry fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			below, err := filepath.Rel(part.dir, path)
			if err != nil {
				return err
			}
			name := filepath.ToSlash(below)
			switch {
			case entry.IsDir() && part.name == partContent && name == "tmp":
				return fs.SkipDir // uploads under way
			case !entry.Type().IsRegular() || !backedUp(part.name, name) || f.public && private(part.name, name):
				return nil
			}
			all = append(all, backup.File{Name: part.name + "/" + name, Path: path, Blob: part.name == partContent && name != urlKey})
			return nil
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("list %s: %w", part.dir, err)
		}
	}
	return all, nil
}

// keyset are the files that the stored accounts belong to.
func (f dataFiles) keyset() []backup.File {
	file := filepath.Join(f.at.keys(), keysetName)
	if there, err := exists(file); err != nil || !there {
		return nil
	}
	return []backup.File{{Name: partKeys + "/" + keysetName, Path: file}}
}

const (
	urlKey     = "url.key"             // signs the addresses of content
	keysetName = "accounts.vault.json" // encrypted
)

var (
	blobName = regexp.MustCompile(`^[0-9a-f]{2}/[0-9a-f]{64}$`)
	fileName = regexp.MustCompile(`^([A-Za-z0-9_-]+/)?[A-Za-z0-9_][A-Za-z0-9_-]*\.[a-z]+(\.[a-z]+)?$`)
)

// backedUp leaves out what is of a moment: locks, files that are being written, and what others put there.
func backedUp(part, name string) bool {
	if part == partContent {
		return blobName.MatchString(name) || name == urlKey
	}
	return fileName.MatchString(name) && !strings.HasSuffix(name, ".lock")
}

// private says whether a file may be a private key, or lets somebody in: all but those that are known not to.
func private(part, name string) bool {
	switch part {
	case partContent:
		return name == urlKey
	case partIdentity, administration:
		return name != fleetName && name != operatorName
	case partAccounts:
		return !strings.HasSuffix(name, ".jwt")
	case partTLS:
		return !strings.HasSuffix(name, ".pem")
	case partKeys:
		return name != keysetName
	}
	return true
}

// missing says what a restore of this backup would need from elsewhere.
func (f dataFiles) missing() (notes []string) {
	if f.public {
		return nil
	}
	if !holds(f.administrator, operatorKeyName) {
		notes = append(notes, fmt.Sprintf("the administrator's keys are not in %s, and so not in this backup: keep a copy of them elsewhere, or name their directory with --administrator-dir", f.administrator))
	}
	if there, err := exists(f.at.accountsKey()); err == nil && !there && holds(f.at.keys(), keysetName) {
		notes = append(notes, fmt.Sprintf("%s is not here: what encrypts the keyset of accounts (--key-encryption) is not in this backup, and their secrets cannot be read without it", f.at.accountsKey()))
	}
	return notes
}

func holds(dir, name string) bool {
	_, err := os.Stat(filepath.Join(dir, name))
	return err == nil
}
