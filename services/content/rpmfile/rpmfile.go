// Package rpmfile says what an RPM package is, from the package alone: its lead and headers, read in pure Go on any operating
// system.
//
// A file that is truncated, hostile or no binary package is an error. Memory and time are bounded by the constants here, never
// by a length that the file states. Nothing behind the main header is read, and signatures are not checked: whether bytes are
// the published ones is the manifest's to say, and whether rpm trusts them is rpm's.
package rpmfile

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"regexp"
)

const leadSize = 96 // bytes

// What these may consist of is rpm's rule. None begins with a dash, so that they can be arguments.
var (
	validName    = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9+._-]*$`)
	validVersion = regexp.MustCompile(`^[A-Za-z0-9+._~^]+$`)
	validArch    = regexp.MustCompile(`^[A-Za-z0-9_]+$`)
)

// Info is what a package says of itself. Name, Version, Release and Arch are always set and valid.
type Info struct {
	Name    string
	Version string // without epoch and release: "2.10"
	Release string // "3.el9"
	Epoch   uint32 // 0 when there is none, which is the same to rpm
	Arch    string // as rpm names it: "x86_64"; "noarch" for any
	Summary string // one line, untranslated
	Vendor  string
}

// Read reads the package in r. An error of r itself is wrapped.
func Read(r io.Reader) (Info, error) {
	buffered := bufio.NewReader(r)
	if err := readLead(buffered); err != nil {
		return Info{}, err
	}
	if err := skipSignature(buffered); err != nil {
		return Info{}, fmt.Errorf("read signature header: %w", err)
	}
	h, err := readHeader(buffered)
	if err != nil {
		return Info{}, fmt.Errorf("read header: %w", err)
	}
	info, err := h.info()
	if err != nil {
		return Info{}, fmt.Errorf("read header: %w", err)
	}
	return info, info.check()
}

// readLead checks the first 96 bytes, which programs other than rpm know packages by: magic, format and kind.
func readLead(r io.Reader) error {
	lead := make([]byte, leadSize)
	if _, err := io.ReadFull(r, lead); err != nil {
		return fmt.Errorf("read lead: %w", err)
	}
	if !bytes.HasPrefix(lead, []byte{0xED, 0xAB, 0xEE, 0xDB}) {
		return errors.New("not an RPM package")
	}
	if major := lead[4]; major != 3 && major != 4 {
		return fmt.Errorf("package format %d is not supported, only 3 and 4", major)
	}
	if kind := binary.BigEndian.Uint16(lead[6:]); kind != 0 {
		return errors.New("it is a source package, which installs nothing")
	}
	return nil
}

func (h header) info() (info Info, err error) {
	for _, field := range []struct {
		tag  uint32
		into *string
	}{
		{tagName, &info.Name},
		{tagVersion, &info.Version},
		{tagRelease, &info.Release},
		{tagArch, &info.Arch},
		{tagSummary, &info.Summary},
		{tagVendor, &info.Vendor},
	} {
		if *field.into, err = h.text(field.tag); err != nil {
			return Info{}, err
		}
	}
	info.Epoch, err = h.number(tagEpoch)
	return info, err
}

func (i Info) check() error {
	for _, field := range []struct {
		name, value string
		valid       *regexp.Regexp
	}{
		{"name", i.Name, validName},
		{"version", i.Version, validVersion},
		{"release", i.Release, validVersion},
		{"architecture", i.Arch, validArch},
	} {
		if !field.valid.MatchString(field.value) {
			return fmt.Errorf("%s of the package is %.64q", field.name, field.value)
		}
	}
	return nil
}
