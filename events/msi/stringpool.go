package msi

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/japanese"
	"golang.org/x/text/encoding/korean"
	"golang.org/x/text/encoding/simplifiedchinese"
	"golang.org/x/text/encoding/traditionalchinese"
)

// stringPool holds every string of a database once; tables refer to them by number, from 1, in refSize bytes.
type stringPool struct {
	refSize  int // 2, or 3 in a database of more than 65,535 strings
	codePage uint32
	data     []byte
	ends     []uint32 // ends[n] is where string n ends in data and n+1 begins
}

// readStringPool reads the stream _StringPool, a header and a length and reference count for each string, and _StringData,
// the strings behind one another.
func readStringPool(file *compound) (*stringPool, error) {
	b, err := file.table("_StringPool", maxStringPool)
	if err != nil {
		return nil, err
	}
	data, err := file.table("_StringData", maxStringData)
	if err != nil {
		return nil, err
	}
	if len(b) < 4 || len(b)%4 != 0 {
		return nil, fmt.Errorf("string pool has %d bytes", len(b))
	}
	const longRefs = 1 << 31
	header := binary.LittleEndian.Uint32(b)
	pool := &stringPool{refSize: 2, codePage: header &^ longRefs, data: data}
	if header&longRefs != 0 {
		pool.refSize = 3
	}
	// A string of 64 KiB or more takes two entries. Descriptions and writers of the format differ on which of the four words
	// then holds the length's upper half, so the layout is the one whose lengths add up to the data there is.
	for _, highWord := range []int{6, 2} {
		if pool.ends = stringEnds(b[4:], len(data), highWord); pool.ends != nil {
			return pool, nil
		}
	}
	return nil, errors.New("string pool and string data do not agree")
}

// stringEnds adds up the lengths in the entries of a string pool; nil if they are not exactly size bytes. highWord is the
// offset of the upper half of a long string's length in its two entries of four bytes.
func stringEnds(entries []byte, size, highWord int) []uint32 {
	ends := make([]uint32, 1, 1+len(entries)/4)
	end := uint32(0)
	for len(entries) > 0 {
		length := uint32(binary.LittleEndian.Uint16(entries))
		if unused := binary.LittleEndian.Uint32(entries) == 0; length == 0 && !unused {
			if len(entries) < 8 {
				return nil
			}
			length = uint32(binary.LittleEndian.Uint16(entries[4:])) | uint32(binary.LittleEndian.Uint16(entries[highWord:]))<<16
			entries = entries[4:]
		}
		entries = entries[4:]
		if length > uint32(size)-end {
			return nil
		}
		end += length
		ends = append(ends, end)
	}
	if end != uint32(size) {
		return nil
	}
	return ends
}

// text returns the string that the reference at the beginning of b names; 0 is null, which a property cannot tell from "".
func (p *stringPool) text(b []byte) (string, error) {
	n := int(binary.LittleEndian.Uint16(b))
	if p.refSize == 3 {
		n |= int(b[2]) << 16
	}
	if n == 0 {
		return "", nil
	}
	if n >= len(p.ends) {
		return "", fmt.Errorf("reference to string %d of %d", n, len(p.ends)-1)
	}
	raw := p.data[p.ends[n-1]:p.ends[n]]
	if len(raw) > maxPropertyText {
		return "", fmt.Errorf("string %d has %d bytes, allowed are %d", n, len(raw), maxPropertyText)
	}
	return decode(raw, p.codePage)
}

func decode(raw []byte, codePage uint32) (string, error) {
	if isASCII(raw) {
		return string(raw), nil
	}
	switch codePage {
	case 0: // neutral: ASCII by the rules, in practice whatever the author's machine used
		if utf8.Valid(raw) {
			return string(raw), nil
		}
		codePage = 1252
	case 65001:
		if !utf8.Valid(raw) {
			return "", errors.New("a string is not the UTF-8 it is declared to be")
		}
		return string(raw), nil
	}
	codec := encodingOf(codePage)
	if codec == nil {
		return "", fmt.Errorf("code page %d is not supported", codePage)
	}
	text, err := codec.NewDecoder().Bytes(raw)
	if err != nil {
		return "", fmt.Errorf("decode code page %d: %w", codePage, err)
	}
	return string(text), nil
}

// encodingOf knows the ANSI code pages of Windows, those that installer databases may be written in.
func encodingOf(codePage uint32) encoding.Encoding {
	switch codePage {
	case 874:
		return charmap.Windows874
	case 932:
		return japanese.ShiftJIS
	case 936:
		return simplifiedchinese.GBK
	case 949:
		return korean.EUCKR
	case 950:
		return traditionalchinese.Big5
	case 1250:
		return charmap.Windows1250
	case 1251:
		return charmap.Windows1251
	case 1252:
		return charmap.Windows1252
	case 1253:
		return charmap.Windows1253
	case 1254:
		return charmap.Windows1254
	case 1255:
		return charmap.Windows1255
	case 1256:
		return charmap.Windows1256
	case 1257:
		return charmap.Windows1257
	case 1258:
		return charmap.Windows1258
	}
	return nil
}

func isASCII(b []byte) bool {
	for _, c := range b {
		if c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
