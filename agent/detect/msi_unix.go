//go:build unix

package detect

func registeredProducts(string) ([]product, error) { return nil, errNoMSI }
