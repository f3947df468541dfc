package msi

import (
	"strings"
	"testing"
)

func TestProductCodesArePackedAsInTheRegistry(t *testing.T) {
	for code, want := range map[string]string{
		"{12345678-9ABC-DEF0-1234-56789ABCDEF0}": "87654321CBA90FED21436587A9CBED0F",
		"{7b1b7f5e-3c1d-4d2c-9e0e-5a6b7c8d9e0f}": "E5F7B1B7D1C3C2D4E9E0A5B6C7D8E9F0",
	} {
		packed, err := PackCode(code)
		if packed != want || err != nil {
			t.Errorf("%s is packed %s, %v; want %s", code, packed, err, want)
		}
	}
	for _, code := range []string{"", "{}", `..\x`, "12345678-9ABC-DEF0-1234-56789ABCDEF0", "{12345678-9ABC-DEF0-1234-56789ABCDEF0}x", "{1234567-89ABC-DEF0-1234-56789ABCDEF0}"} {
		if packed, err := PackCode(code); err == nil {
			t.Errorf("%q is packed %s", code, packed)
		}
	}
}

func FuzzPackCode(f *testing.F) {
	f.Add("{12345678-9ABC-DEF0-1234-56789ABCDEF0}")
	f.Fuzz(func(t *testing.T, code string) {
		packed, err := PackCode(code)
		if err == nil && (len(packed) != 32 || strings.Trim(packed, "0123456789ABCDEF") != "" || string(swapped(swapped([]byte(packed)))) != packed) {
			t.Errorf("%q is packed %q", code, packed)
		}
	})
}

func TestExitCodesOfWindowsInstallerHaveWords(t *testing.T) {
	for _, code := range []int{1601, 1602, 1603, 1604, 1605, 1612, 1618, 1619, 1625, 1631, 1633, 1638, 1641, 3010, 3011} {
		if text := CodeText(code); text == "" || strings.HasSuffix(text, ".") {
			t.Errorf("%d is %q", code, text)
		}
	}
	for _, code := range []int{-1, 0, 1, 2, 5, 259} {
		if text := CodeText(code); text != "" {
			t.Errorf("%d, which every program may end with, is %q", code, text)
		}
	}
}
