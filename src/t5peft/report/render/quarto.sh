# Quarto runs this before and after a render, at the project's root (see _quarto.yml). It does not
# say which format it makes. So what earlier renders made is set aside, lest it be taken for what a
# render that fails was to make; after one that does not, what was not made anew is put back.
out=${QUARTO_PROJECT_OUTPUT_DIR:-_output}
aside=$out/earlier

before() {
  mkdir -p "$aside" && : >"$aside/now" || exit 1
  for name in report.pdf report.html report.docx; do
    [ ! -e "$out/$name" ] || { mv "$out/$name" "$aside" && echo "$name" >>"$aside/now"; } || exit 1
  done
  python=${QUARTO_PYTHON:-python3}
  command -v "$python" >/dev/null || python=python3 # as Quarto goes on
  if ! "$python" -c 'import t5peft' 2>/dev/null; then
    echo "t5peft: $python: found no t5peft, expected the project's .venv/bin/python; run" \
      "make venv, or name your Python in QUARTO_PYTHON" >&2
    exit 1
  fi
}

after() {
  while read -r name; do
    if [ -e "$out/$name" ]; then rm "$aside/$name"; else mv "$aside/$name" "$out"; fi
  done <"$aside/now"
  rm "$aside/now"
}

"$1"
