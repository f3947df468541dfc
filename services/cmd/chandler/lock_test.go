package main

import (
	"strings"
	"testing"
)

func TestTwoServersCannotShareADataDirectory(t *testing.T) {
	dir := t.TempDir()
	unlock, err := lockDirectory(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockDirectory(dir); err == nil || !strings.Contains(err.Error(), "another chandler") {
		t.Fatalf("got %v", err)
	}
	unlock()
	again, err := lockDirectory(dir)
	if err != nil {
		t.Fatal(err)
	}
	again()
}
