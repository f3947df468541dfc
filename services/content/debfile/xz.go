package debfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/ulikunitz/xz/lzma"
)

// newXZReader unpacks an xz file of one block compressed with LZMA2 alone, as every tool makes of something as small as a
// control archive. It takes the container apart itself because xz.Reader allocates whatever dictionary a block states, up to
// 4 GiB; here it is never larger than limit, the most bytes that the caller will read, since nothing can refer further back.
func newXZReader(r io.Reader, limit int64) (io.Reader, error) {
	header := make([]byte, 12) // magic, two bytes of flags, checksum
	if _, err := io.ReadFull(r, header); err != nil {
		return nil, fmt.Errorf("read xz header: %w", err)
	}
	if !bytes.HasPrefix(header, []byte("\xFD7zXZ\x00")) {
		return nil, errors.New("no xz file")
	}
	size := make([]byte, 1) // in units of four bytes, without the first
	if _, err := io.ReadFull(r, size); err != nil {
		return nil, fmt.Errorf("read xz block: %w", err)
	}
	if size[0] == 0 {
		return nil, errors.New("xz file is empty")
	}
	block := make([]byte, int(size[0])*4+3)
	if _, err := io.ReadFull(r, block); err != nil {
		return nil, fmt.Errorf("read xz block: %w", err)
	}
	dictionary, err := dictionarySize(block[:len(block)-4]) // the last four are a checksum
	if err != nil {
		return nil, fmt.Errorf("read xz block: %w", err)
	}
	return lzma.Reader2Config{DictCap: int(max(min(dictionary, limit), lzma.MinDictCap))}.NewReader2(r)
}

// dictionarySize reads the header of a block from its flags on: two optional sizes, and an id and properties for each filter.
func dictionarySize(block []byte) (int64, error) {
	const (
		filters        = 0x03 // their number less one
		hasPackedSize  = 0x40
		hasContentSize = 0x80
		lzma2          = 0x21
	)
	errMalformed := errors.New("malformed header")
	if len(block) == 0 {
		return 0, errMalformed
	}
	flags, rest := block[0], block[1:]
	for _, optional := range []byte{hasPackedSize, hasContentSize} {
		if flags&optional == 0 {
			continue
		}
		_, n := binary.Uvarint(rest)
		if n <= 0 {
			return 0, errMalformed
		}
		rest = rest[n:]
	}
	if len(rest) < 3 {
		return 0, errMalformed
	}
	if flags&filters != 0 || rest[0] != lzma2 || rest[1] != 1 {
		return 0, errors.New("a filter other than LZMA2 is not supported")
	}
	return lzma.DecodeDictCap(rest[2])
}
