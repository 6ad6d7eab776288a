export default { build: { target: 'esnext' }, esbuild: { jsx: 'transform' } };
