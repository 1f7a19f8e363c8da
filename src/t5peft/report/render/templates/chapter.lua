-- Quarto was given a chapter: see chapters/_metadata.yml.
io.stderr:write('t5peft: found a chapter alone, expected report.qmd, which includes it; ',
  'quarto render report.qmd, or t5peft render --chapter NAME\n')
os.exit(2)
