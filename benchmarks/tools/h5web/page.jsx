// h5web's viewer on the file named in the address: /?file=map.h5
import '@h5web/app/styles.css';
import { App } from '@h5web/app';
import { H5WasmBufferProvider } from '@h5web/h5wasm';
import React from 'react';
import { createRoot } from 'react-dom/client';

const file = new URLSearchParams(location.search).get('file');
const buffer = await (await fetch(`/${file}`)).arrayBuffer();

createRoot(document.getElementById('root')).render(
  <H5WasmBufferProvider filename={file} buffer={buffer}>
    <App />
  </H5WasmBufferProvider>,
);
