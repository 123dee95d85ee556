"""Reports that read run folders."""
