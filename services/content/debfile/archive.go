package debfile

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"
)

const (
	maxVersionMember = 64       // bytes of debian-binary
	maxZstdWindow    = 32 << 20 // bytes; dpkg's own default level states 8 MiB
)

// openControlArchive finds the control archive of a package, an ar archive of debian-binary, the control archive and the data
// archive in this order, and unpacks it. The reader fails when more than limit bytes come out.
func openControlArchive(r *bufio.Reader, limit int64) (io.Reader, error) {
	magic := make([]byte, len("!<arch>\n"))
	if _, err := io.ReadFull(r, magic); err != nil || string(magic) != "!<arch>\n" {
		return nil, errors.Join(errors.New("not a Debian package: no ar archive"), err)
	}
	name, size, err := nextMember(r)
	if err != nil {
		return nil, err
	}
	if name != "debian-binary" || size > maxVersionMember {
		return nil, fmt.Errorf("not a Debian package: its first member is %q of %d bytes", name, size)
	}
	version := make([]byte, size+size%2) // members begin at even offsets
	if _, err := io.ReadFull(r, version); err != nil {
		return nil, fmt.Errorf("read debian-binary: %w", err)
	}
	if !bytes.HasPrefix(version, []byte("2.")) {
		return nil, fmt.Errorf("package format %q is not supported, only 2", bytes.TrimSpace(version))
	}
	for {
		name, size, err := nextMember(r)
		if err != nil {
			return nil, err
		}
		if strings.HasPrefix(name, "_") { // reserved for others' additions, which dpkg skips too
			if _, err := io.CopyN(io.Discard, r, size+size%2); err != nil {
				return nil, fmt.Errorf("skip member %q: %w", name, err)
			}
			continue
		}
		if size > limit {
			return nil, fmt.Errorf("%s has %d bytes, allowed are %d", name, size, limit)
		}
		unpacked, err := unpack(name, io.LimitReader(r, size), limit)
		if err != nil {
			return nil, fmt.Errorf("unpack %s: %w", name, err)
		}
		return &limitedReader{r: unpacked, left: limit}, nil
	}
}

// nextMember reads the 60 bytes before a member of an ar archive: its name, padded, and at their end its size.
func nextMember(r io.Reader) (name string, size int64, err error) {
	header := make([]byte, 60)
	if _, err := io.ReadFull(r, header); err != nil {
		return "", 0, fmt.Errorf("read archive member: %w", err)
	}
	if string(header[58:]) != "`\n" {
		return "", 0, errors.New("read archive member: no header where one must be")
	}
	name = strings.TrimSuffix(strings.TrimRight(string(header[:16]), " "), "/")
	number := strings.TrimRight(string(header[48:58]), " ")
	parsed, err := strconv.ParseUint(number, 10, 62)
	if err != nil {
		return "", 0, fmt.Errorf("read archive member %q: size is %q", name, number)
	}
	return name, int64(parsed), nil
}

// unpack undoes the compression that a control archive's name states.
func unpack(name string, r io.Reader, limit int64) (io.Reader, error) {
	switch name {
	case "control.tar":
		return r, nil
	case "control.tar.gz":
		return gzip.NewReader(r)
	case "control.tar.xz":
		return newXZReader(r, limit)
	case "control.tar.zst":
		// Without concurrency the decoder starts no goroutine, so that there is nothing to close.
		return zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(maxZstdWindow))
	}
	return nil, errors.New("it is no control archive of a known compression")
}

// limitedReader is an io.LimitedReader that says so when it cuts something off.
type limitedReader struct {
	r    io.Reader
	left int64
}

func (l *limitedReader) Read(p []byte) (int, error) {
	if l.left <= 0 {
		return 0, errors.New("it unpacks to more than is allowed")
	}
	n, err := l.r.Read(p[:min(int64(len(p)), l.left)])
	l.left -= int64(n)
	return n, err
}
