package msi

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
)

const (
	maxSummary     = 1 << 20 // bytes
	sectionPointer = 44      // where the offset of the first section is, behind the property set's header and format id
	idTemplate     = 7
	typeString     = 30 // VT_LPSTR: a length that counts the final NUL, and the bytes
)

var errSummary = errors.New("truncated or inconsistent")

// readPlatform takes the processor type out of the template ("x64;1033,1031") of the summary information, which is a property
// set as [MS-OLEPS] lays it down.
func readPlatform(file *compound) (string, error) {
	b, err := file.read(summaryStream, maxSummary)
	if err != nil {
		return "", err
	}
	template, err := summaryString(b, idTemplate)
	if err != nil {
		return "", err
	}
	platform, _, _ := strings.Cut(template, ";")
	if platform = strings.TrimSpace(platform); platform == "" {
		return "Intel", nil
	}
	return platform, nil
}

// summaryString finds the string with that id in the first section of a property set; "" if there is none.
func summaryString(b []byte, id uint32) (string, error) {
	start, ok := uint32At(b, sectionPointer)
	if !ok || int64(start) > int64(len(b)) {
		return "", errSummary
	}
	section := b[start:] // its size, the number of its properties, then an id and an offset within the section for each
	count, ok := uint32At(section, 4)
	if !ok || int64(count) > int64(len(section)/8) {
		return "", errSummary
	}
	for i := range int64(count) {
		found, ok := uint32At(section, 8+8*i)
		offset, ok2 := uint32At(section, 12+8*i)
		if !ok || !ok2 {
			return "", errSummary
		}
		if found == id {
			return stringAt(section, int64(offset))
		}
	}
	return "", nil
}

func stringAt(section []byte, offset int64) (string, error) {
	kind, ok := uint32At(section, offset)
	length, ok2 := uint32At(section, offset+4)
	if !ok || !ok2 || kind != typeString || int64(length) > int64(len(section))-offset-8 {
		return "", errSummary
	}
	text, _, _ := bytes.Cut(section[offset+8:][:length], []byte{0})
	return string(text), nil
}

func uint32At(b []byte, offset int64) (uint32, bool) {
	if offset+4 > int64(len(b)) {
		return 0, false
	}
	return binary.LittleEndian.Uint32(b[offset:]), true
}
