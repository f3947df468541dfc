package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"chandler/services/content/publish"
	"chandler/services/declared"
)

// maxFiles bounds the files of one directory of documents.
const maxFiles = 10_000

// readSet reads the documents of a file, of standard input (-), or of a directory. Paths of packages become such as can
// be opened from here.
func readSet(stdin io.Reader, from string) (set declared.Set, err error) {
	files := []string{from}
	if from != "-" {
		if files, err = documentFiles(from); err != nil {
			return set, err
		}
	}
	if len(files) == 0 {
		return set, fmt.Errorf("%s holds no documents: they are files *.yaml or *.yml", from)
	}
	var problems []error
	for _, file := range files {
		one, err := readFile(stdin, file)
		if err == nil {
			err = set.Add(one)
		}
		problems = append(problems, err)
	}
	return set, errors.Join(problems...)
}

func readFile(stdin io.Reader, file string) (declared.Set, error) {
	if filepath.Base(file) == publish.SpecName {
		return packageDirectory(file)
	}
	data, err := readDeclared(stdin, file)
	if err != nil {
		return declared.Set{}, err
	}
	set, err := declared.Parse(file, data)
	if err != nil {
		return set, err
	}
	for i, p := range set.Packages {
		if p.Path != "" && !filepath.IsAbs(p.Path) && file != "-" {
			set.Packages[i].Path = filepath.Join(filepath.Dir(file), filepath.FromSlash(p.Path))
		}
	}
	return set, nil
}

// packageDirectory is a package that is described where it lies. What it is, is read when it is published.
func packageDirectory(file string) (declared.Set, error) {
	data, err := readDeclared(nil, file)
	if err != nil {
		return declared.Set{}, err
	}
	name, version, err := declared.Title(file, data)
	if err != nil {
		return declared.Set{}, err
	}
	return declared.Set{Packages: []declared.Package{{API: declared.API, Package: name, Version: version, Path: filepath.Dir(file)}}}, nil
}

// documentFiles are the files of documents in a directory and below it, sorted; of a file, itself. A directory with a
// package.yaml stands for its package alone. Hidden directories and symbolic links are passed over.
func documentFiles(root string) (files []string, err error) {
	info, err := os.Stat(root)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{root}, nil
	}
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != root && strings.HasPrefix(d.Name(), "."):
			return fs.SkipDir
		case d.IsDir():
			spec := filepath.Join(path, publish.SpecName)
			if _, err := os.Lstat(spec); err == nil {
				files = append(files, spec)
				return fs.SkipDir
			}
		case d.Type().IsRegular() && slices.Contains([]string{".yaml", ".yml"}, filepath.Ext(path)):
			files = append(files, path)
		}
		if len(files) > maxFiles {
			return fmt.Errorf("%s holds more than %s files of documents", root, count(maxFiles))
		}
		return nil
	})
	slices.Sort(files)
	return files, err
}
