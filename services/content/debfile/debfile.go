// Package debfile says what a Debian package is, from the package alone: its control file, read in pure Go on any operating
// system.
//
// A file that is truncated, hostile or no binary package is an error. Memory and time are bounded by the caller's limit and by
// the constants here, never by a length that the file states. Nothing behind the control archive is read. The checksums within
// xz and zstd are not relied on: whether bytes are the published ones is the manifest's to say.
package debfile

import (
	"archive/tar"
	"bufio"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"strconv"
)

// DefaultLimit is room for the control archive of any package in Debian, in bytes.
const DefaultLimit = 16 << 20

const maxControl = 1 << 20 // bytes of the control file itself

// What names and versions may consist of is dpkg's rule. None begins with a dash, so that they can be arguments.
var (
	validName         = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9+._-]*$`)
	validVersion      = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.+~:-]*$`)
	validArchitecture = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9-]*$`)
)

// Info is what a package says of itself. Package, Version and Architecture are always set and valid.
type Info struct {
	Package      string
	Version      string // with epoch and revision: "1:2.10-3"
	Architecture string // as dpkg names it: "amd64"; "all" for any
	Maintainer   string
	Depends      string // as written, on one line: "libc6 (>= 2.34), debconf | debconf-2.0"
	Description  string // the synopsis, which is the field's first line
	InstalledKiB int64  // Installed-Size; 0 when it is not stated or no number, since dpkg does not mind either
}

// Read reads the package in r. limit is the most bytes that the control archive may have, packed as well as unpacked. An error
// of r itself is wrapped.
func Read(r io.Reader, limit int64) (Info, error) {
	archive, err := openControlArchive(bufio.NewReader(r), limit)
	if err != nil {
		return Info{}, err
	}
	control, err := findControl(archive)
	if err != nil {
		return Info{}, fmt.Errorf("read control archive: %w", err)
	}
	fields, err := parseControl(control)
	if err != nil {
		return Info{}, fmt.Errorf("read control file: %w", err)
	}
	info := Info{
		Package:      folded(fields["package"]),
		Version:      folded(fields["version"]),
		Architecture: folded(fields["architecture"]),
		Maintainer:   folded(fields["maintainer"]),
		Depends:      folded(fields["depends"]),
		Description:  firstLine(fields["description"]),
	}
	if size, err := strconv.ParseUint(folded(fields["installed-size"]), 10, 50); err == nil {
		info.InstalledKiB = int64(size)
	}
	return info, info.check()
}

func (i Info) check() error {
	for _, field := range []struct {
		name, value string
		valid       *regexp.Regexp
	}{
		{"Package", i.Package, validName},
		{"Version", i.Version, validVersion},
		{"Architecture", i.Architecture, validArchitecture},
	} {
		if !field.valid.MatchString(field.value) {
			return fmt.Errorf("%s of the control file is %.64q", field.name, field.value)
		}
	}
	return nil
}

// findControl returns the content of the file "control" in a control archive.
func findControl(archive io.Reader) ([]byte, error) {
	files := tar.NewReader(archive)
	for {
		header, err := files.Next()
		if errors.Is(err, io.EOF) {
			return nil, errors.New("there is no control file in it")
		} else if err != nil {
			return nil, err
		}
		if path.Clean(header.Name) != "control" {
			continue
		}
		if header.Typeflag != tar.TypeReg {
			return nil, errors.New("its control file is no regular file")
		}
		if header.Size > maxControl {
			return nil, fmt.Errorf("its control file has %d bytes, allowed are %d", header.Size, maxControl)
		}
		return io.ReadAll(files)
	}
}
