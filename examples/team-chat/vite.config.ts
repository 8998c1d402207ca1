import react from '@vitejs/plugin-react';
import { defineConfig } from 'vite';

export default defineConfig(({ isSsrBuild }) => ({
  plugins: [react()],
  // The package is a link here, and has a React of its own for its tests.
  resolve: { dedupe: ['react', 'react-dom'] },
  build: isSsrBuild ? {} : { outDir: 'dist/page' },
}));
